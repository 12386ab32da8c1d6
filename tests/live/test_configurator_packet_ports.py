"""Packet ports of a configurator are open exactly while their link exists and is up, and keep no namespace alive."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from functools import partial

import pytest

from tests.live.applying import interface
from tests.live.configuring import by_pid, configured, pair, placed, put, quickly, reach_in, settle, until, without_ipv6
from tests.live.frames import frame, of, ours, witness
from tests.witness import ip, names, open_fds, poll, seen
from vethlib import IfIndexCache, LinkNotFound, Session, ns
from vethlib.agent.reconcile import watches
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.agent.registry.packet import PacketPort


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
