"""A session and the caches that are attached to it."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.live.answers import edit_answers, refuse_all
from tests.witness import ip, seen
from vethlib import End, IfIndexCache, LinkNotFound, NetlinkError, Session, Veth
from vethlib._nl.batch import Outcome
from vethlib._nl.link import LinkMessage
from vethlib.session.core.namespaces import Namespaces, OpenNetns


class Failing:
    """A cache that cannot do anything."""

    def find(self, identity: tuple[int, int], name: str) -> LinkMessage | None:
        raise NetlinkError("find")

    def learn(self, identity: tuple[int, int], message: LinkMessage) -> None:
        raise NetlinkError("learn")

    def catch_up(self) -> None:
        raise NetlinkError("catch up")


def test_a_link_that_a_cache_knows_is_not_asked_for(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with IfIndexCache(session) as cache:
        cache.watch("blue")
        session.create(Veth(End("va", "blue"), End("vb")))
        index = seen("va", "blue")["ifindex"]
        refuse_all(monkeypatch, Outcome(105, "lost"))
        assert session.index("va", "blue") == index
        assert session.index("va", "netns:blue") == index
        with pytest.raises(NetlinkError, match="lost"):
            session.index("vb")


@pytest.mark.needs_kernel("5.14")
def test_nor_is_a_socket_opened_for_a_link_whose_namespace_a_cache_knows(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with IfIndexCache(session) as cache:
        cache.watch("blue")
        link = session.create(Veth(End("va", "blue"), End("vb"))).a
        assert session.cookie("blue") == link.cookie
        monkeypatch.setattr(Namespaces, "socket", None)
        assert session.index(link) == link.index
        with pytest.raises(LinkNotFound):
            session.index(replace(link, cookie=link.cookie + 1))


def test_what_somebody_else_has_just_done_is_known(session: Session, blue: str) -> None:
    with IfIndexCache(session) as cache:
        cache.watch("blue")
        session.create(Veth(End("va", "blue"), End("vb")))
        ip("link", "set", "dev", "va", "down", netns="blue")
        ip("link", "set", "dev", "va", "name", "vc", netns="blue")
        ip("link", "set", "dev", "vc", "up", netns="blue")
        assert session.index("vc", "blue") == seen("vc", "blue")["ifindex"]
        assert session.set("vc", "blue", mtu=1400).mtu == 1400
        assert cache.link("vc", "blue").mtu == 1400


def test_a_link_that_is_returned_is_the_kernels_own(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []

    def note(_place: OpenNetns, requests: Sequence[bytes], outcomes: list[Outcome]) -> list[Outcome]:
        asked.extend(requests)
        return outcomes

    with IfIndexCache(session) as cache:
        cache.watch("blue")
        session.create(Veth(End("va", "blue"), End("vb")))
        edit_answers(monkeypatch, note)
        session.lookup("va", "blue")
        assert any(b"va\0" in request for request in asked)


def test_a_cache_that_fails_is_as_good_as_none(session: Session, blue: str) -> None:
    failing = Failing()
    session.attach(failing)
    session.create(Veth(End("va", "blue"), End("vb")))
    assert session.index("va", "blue") == seen("va", "blue")["ifindex"]
    session.set("va", "blue", mtu=1400)
    session.delete("va", "blue")


def test_a_cache_that_is_detached_is_left_alone(session: Session) -> None:
    class Counting(Failing):
        calls = 0

        def catch_up(self) -> None:
            self.calls += 1

    counting = Counting()
    session.attach(counting)
    session.create(Veth(End("va"), End("vb")))
    session.delete("va")
    assert (calls := counting.calls) > 0
    session.detach(counting)
    session.detach(counting)
    session.create(Veth(End("va"), End("vb")))
    session.delete("va")
    assert counting.calls == calls


def test_a_session_does_not_keep_a_cache_alive(session: Session) -> None:
    failing = Failing()
    session.attach(failing)
    del failing
    gc.collect()
    assert next(session._caches._alive(), None) is None
    session.create(Veth(End("va"), End("vb")))


def test_threads_may_attach_and_detach_caches_at_the_same_time(session: Session) -> None:
    caches = [Failing() for _ in range(800)]

    def in_threads(work: Callable[[Failing], object]) -> None:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, caches))

    class Switching:
        """Garbage: another thread runs while it is collected."""

        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            time.sleep(0)

    def attach(cache: Failing) -> None:
        Switching()
        session.attach(cache)

    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(20)
    try:
        in_threads(attach)
        assert len(session._caches._attached) == len(caches)
        in_threads(session.detach)
        assert not session._caches
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*thresholds)
