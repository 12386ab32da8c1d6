"""Dependants of a configurator are attached exactly while their link exists and is up, and detached before deletion."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from functools import partial
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
    quickly,
    settle,
    until,
    without_ipv6,
)
from tests.live.descriptors import descriptors_left
from tests.live.frames import frame, of, ours, witness
from tests.live.tap import Tap
from tests.witness import ip, names, open_fds, poll, seen
from vethlib import IfIndexCache, Link, LinkNotFound, Session, ns
from vethlib.agent.reconcile import watches
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.agent.registry.packet import PacketPort


class Refusing(Tap):
    """Cannot be attached until it is willing."""

    willing = False
    asked = 0

    def attached(self, link: Link) -> None:
        self.asked += 1
        if not self.willing:
            raise OSError("not now")
        super().attached(link)


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


def test_it_is_detached_before_we_set_the_link_down(configurator: Configurator, blue: str) -> None:
    tap = Tap("a", "blue")
    configurator.attach(tap)
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
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


def test_what_else_is_changed_of_the_link_leaves_it_attached(configurator: Configurator, blue: str) -> None:
    tap = Tap("a", "blue")
    configurator.attach(tap)
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    put(configurator, *pair("a", "b", "blue", mtu=1400, ip_addresses=["10.0.0.1/24"]))
    settle(configurator)
    assert seen("a", "blue")["mtu"] == 1400
    assert tap.kinds == ["attached"]


# --- detached by what others do


def test_others_delete_the_link_and_it_is_detached_and_attached_to_the_next(
    configurator: Configurator, blue: str
) -> None:
    tap = Tap("a", "blue")
    configurator.attach(tap)
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
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
    configurator: Configurator, blue: str
) -> None:
    tap = Tap("a", "blue")
    configurator.attach(tap)
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    index = seen("a", "blue")["ifindex"]
    ip("link", "set", "dev", "a", "down", netns="blue")
    until(configurator, lambda: tap.kinds == ["attached", "detached", "attached"])
    assert tap.calls[1:] == [("detached", index, "a down"), ("attached", index, "a up")]


def test_others_rename_the_link_and_it_is_detached_and_attached_when_that_is_put_right(
    configurator: Configurator, blue: str
) -> None:
    tap = Tap("a", "blue")
    configurator.attach(tap)
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
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
    configurator: Configurator, blue: str
) -> None:
    tap = Tap("a", "blue")
    configurator.attach(tap)
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
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


# --- links that nobody manages


def reach_in(netns: str) -> None:
    """A pair of others, up: inside at home, which goes when the namespace ends, and o1 there."""
    ip("link", "add", "name", "inside", "type", "veth", "peer", "name", "o1", "netns", netns)
    ip("link", "set", "dev", "inside", "up")
    ip("link", "set", "dev", "o1", "up", netns=netns)


@pytest.mark.parametrize("netns", ["", "blue"])
def test_a_link_of_others_has_it_attached_as_that_comes_and_goes(
    configurator: Configurator, blue: str, netns: str
) -> None:
    tap = Tap("o1", netns)
    configurator.attach(tap)
    settle(configurator)
    for _ in range(2):
        tap.calls.clear()
        foreign("o1", netns, peer="o2")
        settle(configurator)
        assert tap.calls == []  # it is down
        ip("link", "set", "dev", "o1", "up", netns=netns)
        settle(configurator)
        ip("link", "del", "dev", "o2", netns=netns)
        settle(configurator)
        assert tap.kinds == ["attached", "detached"]
        assert (tap.calls[0][2], tap.calls[1][2]) == ("o1 up", "gone")


def test_a_link_of_others_that_went_while_nobody_looked_there_has_nobody_attached(
    configurator: Configurator, blue: str
) -> None:
    """blue is followed for the pair; then for nobody; then for the dependant."""
    foreign("o1", "blue", peer="o2")
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    ip("link", "set", "dev", "o1", "up", netns="blue")
    settle(configurator)
    configurator.delete("a")
    configurator.delete("b")
    settle(configurator)
    ip("link", "del", "dev", "o1", netns="blue")
    settle(configurator)
    tap = Tap("o1", "blue")
    attachment = configurator.attach(tap)
    settle(configurator)
    assert (tap.calls, attachment.link) == ([], None)


def test_a_namespace_made_anew_before_the_end_of_the_old_one_was_heard_of_has_it_attached(
    configurator: Configurator, blue: str
) -> None:
    reach_in("blue")
    tap = Tap("o1", "blue")
    attachment = configurator.attach(tap)
    ns.remove("blue")
    until(configurator, lambda: attachment.link is None)
    assert poll(lambda: names() == set()), "the old namespace has ended"
    ns.Netns.create("blue").close()
    reach_in("blue")
    until(configurator, lambda: attachment.link is not None)
    assert tap.calls[-1] == ("attached", seen("o1", "blue")["ifindex"], "o1 up")
    ip("link", "del", "dev", "inside")
    settle(configurator)
    assert attachment.link is None


def test_what_was_queued_by_the_old_namespace_does_not_detach_it_in_the_new_one(
    configurator: Configurator, blue: str
) -> None:
    reach_in("blue")
    tap = Tap("o1", "blue")
    configurator.attach(tap)
    ip("link", "set", "dev", "o1", "mtu", "1400", netns="blue")
    ns.remove("blue")
    assert poll(lambda: names() == set()), "the old namespace has ended"
    ns.Netns.create("blue").close()
    reach_in("blue")
    until(configurator, lambda: len(tap.calls) > 2)
    settle(configurator)
    assert tap.kinds == ["attached", "detached", "attached"]
    assert tap.calls[-1] == ("attached", seen("o1", "blue")["ifindex"], "o1 up")


def test_a_packet_port_whose_link_was_away_while_events_were_lost_receives_again(
    session: Session, blue: str, red: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "IfIndexCache", partial(IfIndexCache, receive_buffer=8192))
    without_ipv6("blue", "red")
    with Configurator(session) as configurator:
        reach_in("blue")
        port = PacketPort("o1", "blue", session=session)
        configurator.attach(port)
        settle(configurator)
        assert port.is_attached()
        quickly(*(f"link set dev o1 mtu {1000 + number}" for number in range(50)), netns="blue")
        quickly("link set dev o1 netns red", netns="blue")
        quickly("link set dev o1 netns blue", netns="red")
        quickly("link set dev o1 up", netns="blue")
        assert not port.is_attached()
        until(configurator, port.is_attached)


def test_one_whose_link_was_not_there_for_a_moment_is_asked_again_later(configurator: Configurator, blue: str) -> None:
    class Late(Refusing):
        def attached(self, link: Link) -> None:
            if not self.willing:
                self.willing = True
                raise LinkNotFound("it is away", errno=errno.ENODEV)
            super().attached(link)

    without_ipv6("blue")
    reach_in("blue")
    late = Late("o1", "blue")
    settle(configurator)
    assert poll(lambda: seen("o1", "blue")["operstate"] == "UP")
    settle(configurator)
    configurator.attach(late)
    until(configurator, lambda: late.kinds == ["attached"])


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM])
def test_one_for_which_there_was_no_descriptor_or_no_memory_is_asked_again_later(
    configurator: Configurator, blue: str, number: int
) -> None:
    class Starved(Refusing):
        def attached(self, link: Link) -> None:
            if self.asked < 2:
                self.asked += 1
                raise OSError(number, os.strerror(number))
            self.willing = True
            super().attached(link)

    without_ipv6("blue")
    reach_in("blue")
    starved = Starved("o1", "blue")
    configurator.attach(starved)
    until(configurator, lambda: starved.kinds == ["attached"])
    assert starved.asked == 3


@pytest.mark.parametrize("left", [0, 1, 2, 3])
def test_where_its_namespace_could_not_be_watched_for_want_of_descriptors_it_is_attached_later(
    configurator: Configurator, blue: str, left: int
) -> None:
    reach_in("blue")
    tap = Tap("o1", "blue")
    with descriptors_left(left):
        configurator.attach(tap)
        configurator.poll(0)
    until(configurator, lambda: tap.kinds == ["attached"], 20.0)


def test_a_link_of_others_keeps_it_attached_when_the_last_interface_there_goes(
    configurator: Configurator, blue: str
) -> None:
    foreign("o1", "blue", peer="o2")
    ip("link", "set", "dev", "o1", "up", netns="blue")
    tap = Tap("o1", "blue")
    configurator.attach(tap)
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    configurator.delete("a")
    configurator.delete("b")
    settle(configurator)
    assert tap.kinds == ["attached"]
    ip("link", "del", "dev", "o1", netns="blue")
    settle(configurator)
    assert tap.kinds == ["attached", "detached"]


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


# --- a packet port


def receives(port: PacketPort, peer: str, netns: str, payload: bytes) -> bool:
    """Whether it gets what is sent at the other end, and the other end what it sends."""
    with witness(peer, netns) as raw:
        ours(port.receive, 0)
        raw.send(frame(payload))
        got = ours(port.receive)
        assert port.send(frame(payload[::-1]))
        return (got, ours(of(raw))) == ([frame(payload)], [frame(payload[::-1])])


def test_a_packet_port_receives_frames_and_again_after_each_rebuild(
    session: Session, configurator: Configurator, blue: str
) -> None:
    port = PacketPort("a", "blue", session=session)
    configurator.attach(port)
    with pytest.raises(LinkNotFound):
        port.fileno()
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    assert receives(port, "b", "", b"first")
    old = seen("a", "blue")["ifindex"]
    ip("link", "del", "dev", "b")
    until(configurator, lambda: names("blue") == {"a"} and configured(configurator, "a", "b")())
    settle(configurator)
    assert seen("a", "blue")["ifindex"] != old
    assert receives(port, "b", "", b"second")
    configurator.delete("b")
    settle(configurator)
    with pytest.raises(LinkNotFound):
        port.fileno()
    assert not port.send(frame())


def test_a_packet_port_does_not_keep_a_removed_namespace_alive(
    session: Session, configurator: Configurator, blue: str
) -> None:
    """A pair of others between there and home is the witness: it goes with the namespace, and no sooner."""
    ip("link", "add", "name", "inside", "type", "veth", "peer", "name", "outside", "netns", "blue")
    port = PacketPort("a", "blue", session=session)
    configurator.attach(port)
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    fds = open_fds()
    for number in range(3):
        assert names() == {"b"} | ({"inside"} if number == 0 else set())
        ns.remove("blue")
        until(configurator, lambda: "blue" in ns.names() and configured(configurator, "a", "b")())
        settle(configurator)
        assert poll(lambda: names() == {"b"}), "the old namespace has ended"
        assert receives(port, "b", "", b"anew")
        assert open_fds() == fds


def test_a_packet_port_on_a_link_of_others_does_not_keep_a_removed_namespace_alive(
    session: Session, configurator: Configurator, blue: str
) -> None:
    """Nothing that is managed is there, which would be deleted and take the port off."""
    attachment = configurator.attach(PacketPort("o1", "blue", session=session))
    for _ in range(2):
        reach_in("blue")
        until(configurator, lambda: attachment.link is not None)
        fds = open_fds()
        ns.remove("blue")
        until(configurator, lambda: attachment.link is None)
        assert open_fds() == fds - 1
        assert poll(lambda: names() == set()), "the namespace has ended"
        settle(configurator)
        ns.Netns.create("blue").close()


def test_a_packet_port_does_not_keep_alive_what_ends_with_its_process(
    session: Session, configurator: Configurator, home: ns.Netns, spawn: Callable[[str], int]
) -> None:
    with ns.Netns.anonymous() as anonymous:
        pid = spawn(anonymous.ref)
    ref = by_pid(pid)
    ip("link", "add", "name", "inside", "type", "veth", "peer", "name", "outside", "netns", str(pid))
    port = PacketPort("a", ref.ref, session=session)
    attachment = configurator.attach(port)
    put(configurator, placed("a", "b", ref), interface("b", "a"))
    settle(configurator)
    assert attachment.link is not None
    assert names() == {"inside", "b"}
    os.kill(pid, 9)
    until(configurator, lambda: attachment.link is None)
    settle(configurator)
    assert poll(lambda: names() == set()), "its namespace has ended"


def test_a_packet_port_is_closed_before_we_delete_its_link(
    session: Session, configurator: Configurator, blue: str
) -> None:
    """The kernel puts ENETDOWN into a packet socket when its link goes (packet_notifier, net/packet/af_packet.c)."""
    errors: list[int] = []

    def told(port: PacketPort) -> None:
        with socket.socket(fileno=os.dup(port.fileno())) as copy:
            errors.append(copy.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    configurator.attach(PacketPort("a", "blue", session=session, on_detached=told))
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    configurator.delete("a")
    settle(configurator)
    assert errors == [0]
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    ip("link", "del", "dev", "b")
    until(configurator, lambda: len(errors) == 2)
    assert errors == [0, errno.ENETDOWN]
