"""Dependants of a configurator are attached exactly while their link exists and is up, and detached before deletion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.applying import interface
from tests.live.configuring import (
    by_file,
    by_pid,
    calm,
    configured,
    foreign,
    pair,
    placed,
    put,
    settle,
    until,
    without_ipv6,
)
from tests.live.tap import Refusing, Tap
from tests.witness import ip, names, seen
from vethlib import Session, ns
from vethlib.agent.reconcile.configurator import Configurator

# --- attached


@pytest.mark.parametrize("netns", ["", "blue", "netns:blue"])
def test_registered_before_its_interface_it_is_attached_when_the_second_end_arrives(
    configurator: Configurator, blue: str, netns: str
) -> None:
    tap = Tap("a", netns)
    attachment = configurator.attach(tap)
    one, other = pair("a", "b", netns.removeprefix("netns:"), "blue")
    configurator.put(one)
    settle(configurator)
    assert (tap.calls, attachment.link) == ([], None)
    configurator.put(other)
    settle(configurator)
    index = seen("a", netns)["ifindex"]
    assert tap.calls == [("attached", index, "a up")]
    assert attachment.link is not None
    assert (attachment.link.index, attachment.link.netns) == (index, netns)


def test_registered_before_its_namespace_it_is_attached_when_that_is_created(configurator: Configurator) -> None:
    tap = Tap("a", "new")
    configurator.attach(tap)
    settle(configurator)
    assert ns.names() == []  # waiting creates none
    put(configurator, *pair("a", "b", "new"))
    settle(configurator)
    assert tap.calls == [("attached", seen("a", "new")["ifindex"], "a up")]


def test_registered_after_its_interface_it_is_attached_at_once(configurator: Configurator, blue: str) -> None:
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    tap = Tap("a", "blue")
    configurator.attach(tap)
    assert tap.calls == [("attached", seen("a", "blue")["ifindex"], "a up")]


def test_it_goes_by_the_kernel_name_not_by_the_logical_one(configurator: Configurator, blue: str) -> None:
    logical, kernel = Tap("port1", "blue"), Tap("eth0", "blue")
    configurator.attach(logical)
    configurator.attach(kernel)
    put(configurator, interface("port1", "b", "blue", host_if_name="eth0"), interface("b", "port1"))
    settle(configurator)
    assert (logical.kinds, kernel.kinds) == ([], ["attached"])


def test_a_link_that_is_wanted_down_has_nobody_attached(configurator: Configurator, blue: str) -> None:
    tap = Tap("a", "blue")
    configurator.attach(tap)
    put(configurator, interface("a", "b", "blue", enabled=False), interface("b", "a"))
    settle(configurator)
    assert "UP" not in seen("a", "blue")["flags"]
    assert tap.calls == []
    configurator.put(interface("a", "b", "blue"))
    settle(configurator)
    assert tap.kinds == ["attached"]


def test_one_that_refuses_is_attached_when_the_link_has_changed_and_it_is_willing(
    configurator: Configurator, blue: str, caplog: pytest.LogCaptureFixture
) -> None:
    refusing, tap = Refusing("a", "blue"), Tap("a", "blue")
    attachment = configurator.attach(refusing)
    configurator.attach(tap)
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    assert (refusing.calls, attachment.link, tap.kinds) == ([], None, ["attached"])
    assert any("cannot be attached" in record.message for record in caplog.records)
    assert configured(configurator, "a", "b")()
    refusing.willing = True
    configurator.put(interface("a", "b", "blue", mtu=1400))
    settle(configurator)
    assert (refusing.kinds, tap.kinds) == (["attached"], ["attached"])
    configurator.delete("a")
    settle(configurator)
    assert refusing.calls[1][2] == "a up"


def test_one_that_refuses_is_not_asked_again_while_nothing_changes(configurator: Configurator, blue: str) -> None:
    without_ipv6("", "blue")
    put(configurator, *pair("a", "b", "blue", ip_addresses=["10.0.0.1/24"]))
    calm(configurator)
    refusing = Refusing("a", "blue")
    configurator.attach(refusing)
    configurator.put(interface("a", "b", "blue", ip_addresses=["10.0.0.1/24"]))  # is looked at again
    settle(configurator)
    assert refusing.asked == 1


def test_in_the_namespace_of_a_process_or_a_file_it_is_attached_likewise(
    configurator: Configurator, blue: str, red: str, spawn: Callable[[str], int], tmp_path: Path
) -> None:
    (tmp_path / "file").symlink_to("/run/netns/red")
    process, file = by_pid(spawn("blue")), by_file(tmp_path / "file")
    attachments = [configurator.attach(Tap("a", process.ref)), configurator.attach(Tap("b", file.ref))]
    put(configurator, placed("a", "b", process), placed("b", "a", file))
    settle(configurator)
    assert [one.link and one.link.index for one in attachments] == [
        seen("a", "blue")["ifindex"],
        seen("b", "red")["ifindex"],
    ]


# --- detached by what we do


@pytest.fixture
def tap(configurator: Configurator, blue: str) -> Tap:
    """It is attached to a, which is in blue, of the pair a ⇄ b."""
    tap = Tap("a", "blue")
    configurator.attach(tap)
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    return tap


@pytest.mark.parametrize("deleted", ["a", "b"])
def test_it_is_detached_before_we_delete_the_link_and_kept(configurator: Configurator, blue: str, deleted: str) -> None:
    tap, at_home = Tap("a", "blue"), Tap("b")
    attachment = configurator.attach(tap)
    configurator.attach(at_home)
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    index, other = seen("a", "blue")["ifindex"], seen("b")["ifindex"]
    configurator.delete(deleted)
    settle(configurator)
    assert tap.calls[1:] == [("detached", index, "a up")]
    assert at_home.calls[1:] == [("detached", other, "b up")]
    assert names("blue") == names() == set()
    assert attachment.link is None
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    assert tap.calls[2:] == [("attached", seen("a", "blue")["ifindex"], "a up")]
    assert at_home.kinds == ["attached", "detached", "attached"]


def test_it_is_detached_before_we_set_the_link_down(configurator: Configurator, tap: Tap) -> None:
    index = seen("a", "blue")["ifindex"]
    configurator.put(interface("a", "b", "blue", enabled=False))
    settle(configurator)
    assert tap.calls[1:] == [("detached", index, "a up")]
    configurator.put(interface("a", "b", "blue"))
    settle(configurator)
    assert tap.calls[2:] == [("attached", index, "a up")]


def test_it_is_detached_before_we_rename_the_link_and_one_of_the_new_name_is_attached(
    configurator: Configurator, blue: str
) -> None:
    before, after = Tap("a", "blue"), Tap("eth0", "blue")
    configurator.attach(before)
    configurator.attach(after)
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    index = seen("a", "blue")["ifindex"]
    configurator.put(interface("a", "b", "blue", host_if_name="eth0"))
    settle(configurator)
    assert before.calls == [("attached", index, "a up"), ("detached", index, "a up")]
    assert after.calls == [("attached", index, "eth0 up")]


def test_it_moves_with_the_interface_only_where_its_own_namespace_is(
    configurator: Configurator, blue: str, red: str
) -> None:
    there, here = Tap("a", "blue"), Tap("a", "red")
    configurator.attach(there)
    configurator.attach(here)
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    put(configurator, *pair("a", "b", "red"))
    settle(configurator)
    assert (there.kinds, here.kinds) == (["attached", "detached"], ["attached"])
    assert there.calls[1][2] == "a up"


def test_what_else_is_changed_of_the_link_leaves_it_attached(configurator: Configurator, tap: Tap) -> None:
    put(configurator, *pair("a", "b", "blue", mtu=1400, ip_addresses=["10.0.0.1/24"]))
    settle(configurator)
    assert seen("a", "blue")["mtu"] == 1400
    assert tap.kinds == ["attached"]


# --- detached by what others do


def test_others_delete_the_link_and_it_is_detached_and_attached_to_the_next(
    configurator: Configurator, tap: Tap
) -> None:
    index = seen("a", "blue")["ifindex"]
    ip("link", "del", "dev", "b")
    until(configurator, lambda: tap.kinds == ["attached", "detached", "attached"])
    assert tap.calls[1] == ("detached", index, "gone")
    now = seen("a", "blue")["ifindex"]
    assert now != index
    assert tap.calls[2] == ("attached", now, "a up")


def test_others_delete_a_link_that_cannot_come_back_and_it_is_detached_in_the_same_poll(
    configurator: Configurator, blue: str
) -> None:
    foreign("o1", "blue", peer="o2")
    ip("link", "set", "dev", "o1", "up", netns="blue")
    tap = Tap("o1", "blue")
    configurator.attach(tap)
    settle(configurator)
    ip("link", "del", "dev", "o1", netns="blue")
    configurator.poll(1)
    assert tap.kinds == ["attached", "detached"]


def test_others_set_the_link_down_and_it_is_detached_and_attached_when_that_is_put_right(
    configurator: Configurator, tap: Tap
) -> None:
    index = seen("a", "blue")["ifindex"]
    ip("link", "set", "dev", "a", "down", netns="blue")
    until(configurator, lambda: tap.kinds == ["attached", "detached", "attached"])
    assert tap.calls[1:] == [("detached", index, "a down"), ("attached", index, "a up")]


def test_others_rename_the_link_and_it_is_detached_and_attached_when_that_is_put_right(
    configurator: Configurator, tap: Tap
) -> None:
    index = seen("a", "blue")["ifindex"]
    ip("link", "set", "dev", "a", "down", netns="blue")
    ip("link", "set", "dev", "a", "name", "z", netns="blue")
    until(configurator, configured(configurator, "a", "b"))
    settle(configurator)
    assert names("blue") == {"a"}
    assert tap.calls[1][:2] == ("detached", index)
    assert tap.calls[-1] == ("attached", seen("a", "blue")["ifindex"], "a up")
    assert tap.kinds == ["attached", "detached", "attached"]


def test_others_remove_the_namespace_and_the_one_made_anew_has_it_attached(
    configurator: Configurator, tap: Tap
) -> None:
    ns.remove("blue")
    until(configurator, lambda: tap.kinds == ["attached", "detached", "attached"])
    assert tap.calls[2] == ("attached", seen("a", "blue")["ifindex"], "a up")


def test_while_its_namespace_is_away_it_is_kept(session: Session, blue: str) -> None:
    with Configurator(session, missing_netns="wait") as configurator:
        tap = Tap("a", "blue")
        attachment = configurator.attach(tap)
        put(configurator, *pair("a", "b", "blue"))
        settle(configurator)
        ns.remove("blue")
        until(configurator, lambda: attachment.link is None)
        settle(configurator)
        assert tap.kinds == ["attached", "detached"]
        ns.Netns.create("blue").close()
        until(configurator, lambda: attachment.link is not None)
        assert tap.calls[2] == ("attached", seen("a", "blue")["ifindex"], "a up")


# --- its end


def test_removed_it_is_detached_and_not_attached_again(configurator: Configurator, blue: str) -> None:
    tap, stays = Tap("a", "blue"), Tap("a", "blue")
    attachment = configurator.attach(tap)
    configurator.attach(stays)
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    attachment.remove()
    attachment.remove()
    assert tap.kinds == ["attached", "detached"]
    configurator.delete("a")
    settle(configurator)
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    assert tap.kinds == ["attached", "detached"]
    assert stays.kinds == ["attached", "detached", "attached"]


def test_closing_detaches_and_the_link_stays(session: Session, blue: str) -> None:
    tap, waiting = Tap("a", "blue"), Tap("other")
    with Configurator(session) as configurator:
        configurator.attach(tap)
        configurator.attach(waiting)
        put(configurator, *pair("a", "b", "blue"))
        settle(configurator)
    assert tap.calls[1:] == [("detached", seen("a", "blue")["ifindex"], "a up")]
    assert waiting.calls == []
