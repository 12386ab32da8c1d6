"""A follower of microservices: answers of the resolver, ends of processes, and labels that are no reference."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.live.descriptors import descriptors_left
from tests.live.followers import heard, settle
from vethlib import (
    InvalidValue,
    LinkNotFound,
    NetnsNotFound,
    Session,
    ns,
)
from vethlib.agent.host.observation import observe
from vethlib.follow import Follower, MemoryResolver, Resolver, ResolverDown

VNF1 = "microservice:vnf1"


@pytest.fixture
def follower(home: ns.Netns, resolver: MemoryResolver) -> Iterator[Follower]:
    with Follower(resolver) as follower:
        yield follower


Sleeper = Callable[[], "subprocess.Popen[bytes]"]


# --- microservices


def test_a_session_takes_the_same_resolver(home: ns.Netns, resolver: MemoryResolver, blue: str) -> None:
    with Session(resolver=resolver) as session:
        with pytest.raises(NetnsNotFound, match="vnf1") as gone:
            session.lookup("lo", VNF1)
        assert gone.value.netns == VNF1
        resolver.set("vnf1", "netns:blue")
        assert session.lookup("lo", VNF1).name == "lo"
        with pytest.raises(LinkNotFound):
            session.lookup("va", VNF1)
        resolver.down("away")
        with pytest.raises(ResolverDown, match=r"^away$"):
            session.lookup("lo", VNF1)
    assert isinstance(resolver, Resolver)


def test_another_answer_of_the_resolver_is_told(follower: Follower, resolver: MemoryResolver) -> None:
    follower.follow([VNF1, "microservice:vnf2"])
    assert follower.changed() == set()
    resolver.set("vnf1", "pid:1")
    resolver.set("vnf3", "pid:1")
    assert heard(follower) == {VNF1}
    resolver.remove("vnf1")
    resolver.set("vnf2", "pid:1")
    assert heard(follower) == {VNF1, "microservice:vnf2"}
    assert not select.select([follower], [], [], 0)[0]


def test_the_end_of_a_microservice_s_process_is_told_though_the_resolver_says_nothing(
    follower: Follower, resolver: MemoryResolver, sleeper: Sleeper
) -> None:
    first, second = sleeper(), sleeper()
    resolver.set("vnf1", f"pid:{first.pid}")
    follower.follow([VNF1])
    settle(follower)
    first.kill()
    assert heard(follower) == {VNF1}
    assert "vnf1" in follower.gone(VNF1)
    resolver.set("vnf1", f"pid:{second.pid}")
    assert heard(follower) == {VNF1}
    assert follower.gone(VNF1) == ""
    second.kill()
    assert heard(follower) == {VNF1}
    assert "vnf1" in follower.gone(VNF1)


def test_a_look_at_a_microservice_whose_process_has_just_ended_says_so_of_the_microservice(
    home: ns.Netns, resolver: MemoryResolver, sleeper: Sleeper
) -> None:
    """Nobody has heard of it yet."""
    process = sleeper()
    resolver.set("vnf1", f"pid:{process.pid}")
    resolver.set("vnf2", "netns:blue")
    process.kill()
    process.wait()
    with Session(resolver=resolver) as session:
        seen = observe(session, [VNF1, "microservice:vnf2"]).netns
    assert (seen[VNF1].code, seen["microservice:vnf2"].code) == ("microservice-not-running", "netns-not-found")


def test_what_a_resolver_remarks_is_told_and_is_a_change(follower: Follower, resolver: MemoryResolver) -> None:
    follower.follow([VNF1, "blue"])
    resolver.set("vnf1", "blue")
    settle(follower)
    assert (follower.remark(VNF1), follower.remark("blue"), follower.remark("")) == ("", "", "")
    resolver.set("vnf1", "blue", "two")
    assert heard(follower) == {VNF1}
    assert follower.remark(VNF1) == "two"
    resolver.down("away")
    assert follower.remark(VNF1) == ""
    resolver.up()
    resolver.remove("vnf1")
    assert follower.remark(VNF1) == ""


def test_a_resolver_without_remarks_makes_none(home: ns.Netns) -> None:
    class Plain:
        """All that a resolver has to be."""

        def __call__(self, label: str) -> str:
            return "blue"

        def fileno(self) -> int:
            return self.news

        def changed(self) -> list[str]:
            return []

        def close(self) -> None:
            os.close(self.news)

        def __init__(self) -> None:
            self.news = os.eventfd(0)

    resolver = Plain()
    assert isinstance(resolver, Resolver)
    with Follower(resolver) as follower:
        follower.follow([VNF1])
        assert follower.remark(VNF1) == ""
    resolver.close()


def test_a_microservice_with_a_name_or_a_file_is_followed_there(follower: Follower, resolver: MemoryResolver) -> None:
    resolver.set("vnf1", "blue")
    follower.follow([VNF1])
    settle(follower)
    subprocess.run(["ip", "netns", "add", "blue"], check=True)
    assert heard(follower) == {VNF1}
    settle(follower)
    resolver.set("vnf1", "netns:red")
    assert heard(follower) == {VNF1}
    subprocess.run(["ip", "netns", "del", "blue"], check=True)
    assert heard(follower, 0.02) == set()


def test_while_the_resolver_is_down_what_was_known_is_followed(
    follower: Follower, resolver: MemoryResolver, sleeper: Sleeper
) -> None:
    process = sleeper()
    resolver.set("vnf1", f"pid:{process.pid}")
    follower.follow([VNF1])
    resolver.down("away")
    follower.follow(["microservice:vnf2"])
    assert heard(follower) >= {VNF1}
    process.kill()
    assert heard(follower) == {VNF1}
    assert "vnf1" in follower.gone(VNF1)
    resolver.up()
    assert heard(follower) == {VNF1, "microservice:vnf2"}


def test_a_resolver_that_answers_nonsense_leaves_the_rest_alone(home: ns.Netns) -> None:
    answers = iter(["pid:none", "microservice:other", ""])
    with Follower(lambda label: next(answers)) as follower:
        follower.follow([f"microservice:{n}" for n in range(3)])
        assert follower.changed() == set()
    with Follower() as follower:
        follower.follow([VNF1])
        assert follower.gone(VNF1) == ""
        assert follower.changed() == set()


def test_out_of_descriptors_a_microservice_is_followed_later(
    follower: Follower, resolver: MemoryResolver, sleeper: Sleeper
) -> None:
    process = sleeper()
    follower.follow([VNF1])
    resolver.set("vnf1", f"pid:{process.pid}")
    with descriptors_left(0):
        assert heard(follower) == {VNF1}
    due = follower.due()
    assert due is not None
    time.sleep(due)
    follower.changed()
    assert follower.due() is None
    process.kill()
    assert heard(follower) == {VNF1}
    assert "vnf1" in follower.gone(VNF1)


def test_a_label_that_stands_for_no_reference_is_refused(resolver: MemoryResolver) -> None:
    with pytest.raises(InvalidValue):
        resolver.set("vnf1", "pid:none")
