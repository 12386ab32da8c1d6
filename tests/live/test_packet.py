"""PacketPort: frames on real links, and nothing is left of it when the link is deleted."""

from __future__ import annotations

import errno
import os
import select
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from struct import pack
from typing import Any

import pytest

from tests.capabilities import dropped
from tests.live.frames import ETHER, MACS, frame, of, ours, witness
from tests.refusing import raises
from tests.witness import ip, names, open_fds, poll, seen
from vethlib import (
    End,
    IfIndexCache,
    InvalidValue,
    Link,
    LinkNotFound,
    NetnsNotFound,
    NotPermitted,
    Pair,
    Session,
    Veth,
    ns,
)
from vethlib.agent.registry.dependants import Dependants
from vethlib.agent.registry.packet import PacketPort

CAP_NET_RAW = 13
NO_WORK = bytes(10)  # a struct virtio_net_hdr that says nothing


@pytest.fixture
def pair(session: Session, blue: str, red: str) -> Pair:
    """Ends without IPv6, whose router solicitations and reports would arrive among the frames of a test."""
    va = End("va", "blue", mac="02:00:00:00:00:01", ipv6=False)
    return session.create(Veth(va, End("vb", "red", ipv6=False)), wait=30)


@pytest.fixture
def port(session: Session, pair: Pair) -> Iterator[PacketPort]:
    """On va in blue."""
    port = PacketPort("va", "blue", session=session)
    port.attached(pair.a)
    yield port
    port.detached(pair.a)


@pytest.fixture
def peer(pair: Pair) -> Iterator[socket.socket]:
    """On vb in red."""
    with witness("vb", "red") as raw:
        yield raw


def packets(name: str, netns: str) -> tuple[int, int]:
    stats = seen(name, netns)["stats64"]
    return stats["rx"]["packets"], stats["tx"]["packets"]


# --- frames


def test_a_frame_that_is_sent_arrives_at_the_other_end_as_it_was(port: PacketPort, peer: socket.socket) -> None:
    before = packets("vb", "red")[0]
    assert port.send(frame(b"one"))
    assert port.send(bytearray(frame(b"two")))
    assert ours(of(peer), 2) == [frame(b"one"), frame(b"two")]
    assert packets("vb", "red")[0] >= before + 2


def test_a_frame_that_arrives_is_received_as_it_was_sent(port: PacketPort, peer: socket.socket) -> None:
    assert ours(port.receive, 0) == []
    for payload in (b"", b"one", bytes(1500)):
        peer.send(frame(payload))
    assert ours(port.receive, 3) == [frame(b""), frame(b"one"), frame(bytes(1500))]
    assert port.receive() is None


def test_its_descriptor_is_readable_exactly_when_there_is_something(port: PacketPort, peer: socket.socket) -> None:
    while port.receive():
        pass
    assert select.select([port], [], [], 0)[0] == []
    peer.send(frame())
    assert select.select([port], [], [], 30)[0] == [port]
    ours(port.receive, 0)
    assert select.select([port], [], [], 0)[0] == []


def test_what_the_host_itself_sends_on_the_link_is_not_received(port: PacketPort, peer: socket.socket) -> None:
    with witness("va", "blue") as other:
        other.send(frame(b"out"))
        port.send(frame(b"mine"))
        assert ours(of(peer), 2) == [frame(b"out"), frame(b"mine")]
    assert ours(port.receive, 0) == []


def test_frames_of_other_links_are_not_received(session: Session, pair: Pair) -> None:
    session.create(Veth(End("vc", "blue"), End("vd", "red")), wait=30)
    over = threading.Event()

    def send(raw: socket.socket) -> None:
        while not over.is_set():
            raw.send(frame(b"noise"))

    port = PacketPort("va", "blue", session=session)
    with witness("vd", "red") as noise:
        thread = threading.Thread(target=send, args=(noise,))
        thread.start()
        try:
            for _ in range(50):
                port.attached(pair.a)
                assert b"noise" not in b"".join(iter(port.receive, None))
                port.detached(pair.a)
        finally:
            over.set()
            thread.join()


def test_the_longest_frame_of_a_link_goes_both_ways(session: Session, blue: str, red: str) -> None:
    pair = session.create(Veth(End("va", "blue", mtu=65535), End("vb", "red", mtu=65535)), wait=30)
    port = PacketPort("va", "blue", session=session)
    port.attached(pair.a)
    longest = frame(os.urandom(65535))
    with witness("vb", "red") as peer:
        peer.send(longest)
        assert ours(port.receive) == [longest]
        assert port.send(longest)
        assert ours(of(peer)) == [longest]
        assert not port.send(longest + b"x")
    port.detached(pair.a)


@pytest.mark.parametrize("tag", ["8100 2005", "88a8 0fff", "8100 0001 8100 0002"])
def test_a_tagged_frame_keeps_its_tags(session: Session, pair: Pair, port: PacketPort, tag: str) -> None:
    tagged = MACS + bytes.fromhex(tag) + pack(">H", ETHER) + b"hello"
    other = PacketPort("vb", "red", session=session)
    other.attached(pair.b)
    with witness("vb", "red") as peer:
        peer.send(tagged)
        assert ours(port.receive) == [tagged]
        assert port.send(tagged)
        assert ours(other.receive) == [tagged]
    other.detached(pair.b)


@pytest.mark.parametrize("tag", ["", "81002005"])
def test_with_offload_what_is_left_undone_is_handed_on(session: Session, pair: Pair, tag: str) -> None:
    """A UDP checksum that is not filled in: received with the place of it, sent on, filled in nowhere on the way."""
    port = PacketPort("va", "blue", session=session, offload=True)
    port.attached(pair.a)
    link_header = MACS + bytes.fromhex(tag) + b"\x08\x00"
    inner = bytes.fromhex("4500001e000040004011") + bytes(2) + bytes([10, 0, 0, 1, 10, 0, 0, 2])
    inner += pack(">HHHH", 1000, 2000, 10, 0x1234) + b"hi"
    at = len(link_header) + 20
    undone = pack("=BBHHHH", 1, 0, at + 8, 0, at, 6) + link_header + inner
    with witness("vb", "red", offload=True) as peer:
        peer.send(undone)
        (received,) = ours(port.receive)
        assert received[10:] == undone[10:]
        assert (received[0], received[6:10]) == (1, undone[6:10])
        assert port.send(received)
        (sent,) = ours(of(peer))
        assert sent[0] == 1, "the kernel took the place of the checksum for one"
        assert sent[-len(inner) :] == inner
    port.detached(pair.a)


@pytest.mark.parametrize("offload", [True, False])
def test_frames_are_sent_as_they_are_and_with_offload_behind_ten_bytes(
    session: Session, pair: Pair, peer: socket.socket, offload: bool
) -> None:
    port = PacketPort("va", "blue", session=session, offload=offload)
    port.attached(pair.a)
    assert port.send(NO_WORK * offload + frame())
    assert ours(of(peer)) == [frame()]
    peer.send(frame())
    assert ours(port.receive) == [NO_WORK * offload + frame()]
    port.detached(pair.a)


def test_tcp_gets_through_a_forwarder_that_hands_on_what_is_left_undone(session: Session, blue: str, red: str) -> None:
    """Its checksums are not filled in and its segments not cut between two links of one host."""
    session.create(Veth(End("left", "blue", addresses=["10.0.0.1/24"]), End("pl")), wait=30)
    session.create(Veth(End("right", "red", addresses=["10.0.0.2/24"]), End("pr")), wait=30)
    ports = [PacketPort(name, session=session, offload=True) for name in ("pl", "pr")]
    for port in ports:
        port.attached(session.lookup(port.host_if_name))
    over = threading.Event()
    lengths: list[int] = []

    def forward() -> None:
        while not over.is_set():
            for port in select.select(ports, [], [], 0.05)[0]:
                while one := port.receive():
                    lengths.append(len(one))
                    ports[1 - ports.index(port)].send(one)

    thread = threading.Thread(target=forward)
    thread.start()
    with ns.entered("red"):
        server = socket.create_server(("10.0.0.2", 0))
    with ns.entered("blue"):
        client = socket.socket()
    content = os.urandom(1 << 20)

    def send() -> None:
        client.sendall(content)
        client.shutdown(socket.SHUT_WR)

    try:
        with server, client:
            client.settimeout(60)
            client.connect(server.getsockname())
            sender = threading.Thread(target=send)
            sender.start()
            connection, _ = server.accept()
            with connection:
                connection.settimeout(60)
                assert b"".join(iter(lambda: connection.recv(1 << 16), b"")) == content
            sender.join()
    finally:
        over.set()
        thread.join()
        for port in ports:
            port.detached(session.lookup(port.host_if_name))
    assert max(lengths) > 1514 + 10


# --- a link that is not as it should be


def test_while_it_is_not_attached_there_is_nothing_to_receive_and_what_is_sent_is_lost(session: Session) -> None:
    port = PacketPort("va", "blue", session=session)
    assert port.receive() is None
    assert port.send(frame()) is False
    with raises(LinkNotFound, netns="blue"):
        port.fileno()
    port.detached(link_like("va", 2))  # of what was not attached, nothing


def link_like(name: str, index: int) -> Link:
    return Link(index, name, "", "veth", "", 1500, True, "up", (), None, None, "", 0, 1)


def test_what_is_too_long_for_the_link_is_lost_and_what_is_no_frame_is_an_error(port: PacketPort) -> None:
    assert port.send(frame(bytes(1500)))
    assert not port.send(frame(bytes(1501)))
    with pytest.raises(OSError):
        port.send(b"short")


def test_a_link_that_is_set_down_and_up_again_is_no_error(port: PacketPort, peer: socket.socket) -> None:
    peer.send(frame(b"before"))
    ip("link", "set", "va", "down", netns="blue")
    assert frame(b"before") in list(iter(port.receive, None))
    assert not port.send(frame())
    assert select.select([port], [], [], 0)[0] == []
    ip("link", "set", "va", "up", netns="blue")
    assert poll(lambda: port.send(frame(b"after")) and bool(ours(of(peer), 0)))
    peer.send(frame(b"back"))
    assert ours(port.receive) == [frame(b"back")]


def test_a_link_that_others_delete_is_no_error(port: PacketPort) -> None:
    ip("link", "del", "vb", netns="red")
    assert ours(port.receive, 0) == []  # the kernel may have sent its own before
    assert not port.send(frame())


@pytest.mark.parametrize("link", [link_like("nope", 2), link_like("va", 99), link_like("lo", 2)])
def test_a_link_that_is_not_that_one_any_more_is_not_attached_to(session: Session, pair: Pair, link: Link) -> None:
    assert pair.a.index == 2
    port = PacketPort(link.name, "blue", session=session)
    fds = open_fds()
    with raises(LinkNotFound, errno=errno.ENODEV, netns="blue"):
        port.attached(link)
    assert open_fds() == fds
    assert port.receive() is None


def test_a_namespace_that_is_not_there_is_named(session: Session) -> None:
    with raises(NetnsNotFound, netns="netns:nope", taken=False):
        PacketPort("va", "nope", session=session).attached(link_like("va", 2))


class Empty(list[object]):
    """An open namespace that is false."""

    def __init__(self, netns: ns.Netns) -> None:
        self.fileno = netns.fileno


def test_it_is_where_an_open_namespace_is_whatever_has_its_descriptor(session: Session, pair: Pair, blue: str) -> None:
    session.create(Veth(End("va"), End("vc")), wait=30)  # in home there is a link of that name, too
    with ns.Netns.open(blue) as opened, ns.open_owned(blue) as owned, open(f"/run/netns/{blue}") as file:
        references: list[Any] = [opened, owned, file, Empty(opened)]
        for reference in references:
            port = PacketPort("va", reference, session=session)
            port.attached(pair.a)
            assert port.is_attached()
            port.detached(pair.a)


def test_values_that_it_cannot_have_are_refused(session: Session) -> None:
    wrong: Any = "x"
    for field in ("offload", "on_attached", "on_detached"):
        with raises(InvalidValue, field=field):
            PacketPort("va", session=session, **{field: wrong})
    with open("/dev/null") as closed:
        pass
    with raises(NetnsNotFound):
        PacketPort("va", closed, session=session)


def test_without_the_capability_it_says_which(session: Session, pair: Pair) -> None:
    port = PacketPort("va", "blue", session=session)
    with dropped(CAP_NET_RAW), raises(NotPermitted, capability="CAP_NET_RAW", netns="blue"):
        port.attached(pair.a)


# --- what is left of it


def test_home_is_the_sessions(session: Session, blue: str) -> None:
    pair = session.create(Veth(End("va"), End("vb", "blue")), wait=30)
    port = PacketPort("va", session=session)
    with ns.entered("blue"):
        port.attached(pair.a)
    with witness("vb", "blue") as peer:
        peer.send(frame())
        assert ours(port.receive) == [frame()]
    port.detached(pair.a)


def test_detached_it_leaves_no_descriptor_and_the_namespace_ends_with_its_last_name(
    session: Session, blue: str
) -> None:
    pair = session.create(Veth(End("va", "blue"), End("vb")), wait=30)
    fds = open_fds()
    port = PacketPort("va", "blue", session=session)
    port.attached(pair.a)
    assert open_fds() == fds + 1
    ns.remove("blue")
    assert not poll(lambda: names() == set(), 0.3), "an open socket keeps its namespace: so detaching has to come first"
    port.detached(pair.a)
    assert open_fds() == fds
    assert poll(lambda: names() == set())


def test_hooks_have_it_in_a_selector_and_out_again(session: Session, pair: Pair, peer: socket.socket) -> None:
    with selectors.DefaultSelector() as selector:
        port = PacketPort(
            "va",
            "blue",
            session=session,
            on_attached=lambda port: selector.register(port, selectors.EVENT_READ),
            on_detached=selector.unregister,
        )
        for _ in range(3):
            port.attached(pair.a)
            ours(port.receive, 0)
            peer.send(frame())
            assert [key.fileobj for key, _ in selector.select(1)] == [port]
            port.detached(pair.a)
            port.detached(pair.a)
            assert selector.select(0) == []


@pytest.mark.parametrize("hook", ["on_attached", "on_detached"])
def test_a_hook_that_fails_leaves_no_socket(session: Session, pair: Pair, hook: str) -> None:
    def fail(_: PacketPort) -> None:
        raise RuntimeError(hook)

    options: dict[str, Any] = {hook: fail}
    port = PacketPort("va", "blue", session=session, **options)
    fds = open_fds()
    with pytest.raises(RuntimeError):
        for tell in (port.attached, port.detached):
            tell(pair.a)
    assert open_fds() == fds
    assert not port.send(frame())


# --- as a dependant


def test_it_follows_its_link_through_every_life_of_it(session: Session, blue: str, red: str) -> None:
    dependants = Dependants(place_of(session), lambda _: ["blue"])
    port = PacketPort("va", "blue", session=session)
    handle = dependants.add(port)
    with IfIndexCache(session) as cache:
        cache.watch_all(["blue", "red"])

        def attached_to() -> int | None:
            """After all that has happened."""
            for event in cache.poll(0.1):
                if event.netns == "blue" and event.link is not None:
                    dependants.link_is(session.identity("blue"), event.link)
                elif event.netns == "blue" and event.old is not None:
                    dependants.link_is_gone(session.identity("blue"), event.old.index)
            return handle.link.index if handle.link else None

        lives = []
        for life in range(3):
            lives.append(session.create(Veth(End("va", "blue"), End("vb", "red")), wait=30).a.index)
            assert attached_to() == lives[-1]
            with witness("vb", "red") as peer:
                peer.send(frame(bytes([life])))
                assert ours(port.receive) == [frame(bytes([life]))]
            ip("link", "set", "va", "down", netns="blue")
            assert attached_to() is None
            ip("link", "set", "va", "up", netns="blue")
            assert attached_to() == lives[-1]
            ip("link", "del", "vb", netns="red")
            assert attached_to() is None
        assert len(set(lives)) == 3
        session.create(Veth(End("va", "blue"), End("vb")), wait=30)
        assert attached_to() is not None
        ns.remove("blue")
        dependants.look_again(["blue"])
        assert attached_to() is None
        assert poll(lambda: names() == set()), "its namespace has ended"


def place_of(session: Session) -> Callable[[str], tuple[int, int] | None]:
    def place(ref: str) -> tuple[int, int] | None:
        try:
            return session.identity(ref)
        except NetnsNotFound:
            return None

    return place
