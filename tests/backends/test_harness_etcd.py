"""The servers and the network for the tests of the etcd store behave as those tests assume."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.backends.etcd import ROOT, Cluster, Etcd, Tls
from tests.backends.etcd_fixtures import MakeEtcd, MakeProxy
from tests.backends.ports import free_port
from tests.backends.proxy import Proxy
from tests.witness import poll
from vethlib import ns

MEGABYTE = 1 << 20


class Source:
    """A server that sends one megabyte to whoever sends a byte, then all that it is sent back."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", free_port()))
        self.address = self._listener.getsockname()
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(one)
            threading.Thread(target=self._serve, args=(one,), daemon=True).start()

    def _serve(self, one: socket.socket) -> None:
        try:
            one.recv(1)
            one.sendall(bytes(MEGABYTE))
            while found := one.recv(4096):
                one.sendall(found)
            one.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        if not self._thread.is_alive():
            return
        self._listener.shutdown(socket.SHUT_RDWR)  # which ends accept()
        self._thread.join()
        self._listener.close()
        for one in self._connections:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()


@pytest.fixture
def source(nothing_open: None) -> Iterator[Source]:
    server = Source()
    yield server
    server.close()


@pytest.fixture
def between(source: Source, make_proxy: MakeProxy) -> Proxy:
    return make_proxy(source.address)


@pytest.fixture
def connect() -> Iterator[Callable[[Proxy], socket.socket]]:
    made: list[socket.socket] = []

    def connect(proxy: Proxy) -> socket.socket:
        made.append(socket.create_connection(proxy.address, timeout=30))
        return made[-1]

    yield connect
    for one in made:
        one.close()


Connect = Callable[[Proxy], socket.socket]


def received(one: socket.socket, count: int = MEGABYTE) -> int:
    """How many of so many bytes come, until the connection is cut."""
    found = 0
    while found < count:
        try:
            chunk = one.recv(65536)
        except ConnectionResetError:
            return found
        assert chunk, "ended, but not cut"
        found += len(chunk)
    return found


def is_silent(one: socket.socket, seconds: float = 0.2) -> bool:
    one.settimeout(seconds)
    try:
        one.recv(1)
    except TimeoutError:
        return True
    finally:
        one.settimeout(30)
    return False


def test_it_passes_all_on_in_order_and_counts_it(between: Proxy, connect: Connect) -> None:
    one = connect(between)
    one.sendall(b"!")
    assert received(one) == MEGABYTE
    one.sendall(b"and back")
    assert one.recv(100) == b"and back"
    assert (between.accepted, between.bytes_up, between.bytes_down) == (1, 9, MEGABYTE + 8)
    one.shutdown(socket.SHUT_WR)
    assert one.recv(1) == b""


def test_to_cut_resets_every_connection(between: Proxy, connect: Connect) -> None:
    both = [connect(between), connect(between)]
    assert poll(lambda: between.connections == 2)
    between.cut()
    assert between.connections == 0
    for one in both:
        with pytest.raises(ConnectionResetError):
            one.recv(1)
    connect(between).sendall(b"!")


def test_who_is_refused_gets_no_connection_and_others_keep_theirs(between: Proxy, connect: Connect) -> None:
    one = connect(between)
    assert poll(lambda: between.connections == 1)
    between.refuse()
    with pytest.raises(ConnectionRefusedError):
        connect(between)
    one.sendall(b"!")
    assert received(one) == MEGABYTE
    between.accept()
    connect(between)


@pytest.mark.parametrize("count", [1, 1000, MEGABYTE - 1])
def test_a_connection_is_cut_after_so_many_bytes_and_no_other_is(between: Proxy, connect: Connect, count: int) -> None:
    between.cut_after(count)
    one, other = connect(between), connect(between)
    one.sendall(b"!")
    assert received(one) == count
    other.sendall(b"!")
    assert received(other) == MEGABYTE
    assert (between.cuts, between.bytes_down) == (1, count + MEGABYTE)


def test_a_connection_is_cut_after_so_many_bytes_more(between: Proxy, connect: Connect) -> None:
    one = connect(between)
    one.sendall(b"!")
    assert received(one) == MEGABYTE
    between.cut_after(3)
    one.sendall(b"back and forth")
    assert received(one) == 3


def test_silence_is_not_heard_and_ends_with_all_that_was_said(between: Proxy, connect: Connect) -> None:
    one = connect(between)
    between.silence()
    other = connect(between)
    one.sendall(b"!")
    other.sendall(b"!")
    assert is_silent(one)
    assert is_silent(other, 0.05)
    assert (between.accepted, between.bytes_up, between.bytes_down) == (2, 0, 0)
    between.speak()
    assert received(one) == received(other) == MEGABYTE


@pytest.mark.parametrize(("way", "passed"), [("up", 0), ("down", 1)])
def test_silence_can_be_of_one_way_only(between: Proxy, connect: Connect, way: str, passed: int) -> None:
    one = connect(between)
    between.silence(up=way == "up", down=way == "down")
    one.sendall(b"!")
    assert is_silent(one)
    assert (between.bytes_up, between.bytes_down) == (passed, 0)
    between.speak()
    assert received(one) == MEGABYTE


def test_in_silence_the_end_of_the_other_side_is_not_heard(source: Source, between: Proxy, connect: Connect) -> None:
    one = connect(between)
    one.sendall(b"!")
    assert received(one) == MEGABYTE
    between.silence()
    source.close()
    assert is_silent(one)
    between.speak()
    assert one.recv(1) == b""


def test_a_proxy_listens_in_another_namespace(source: Source, make_proxy: MakeProxy, connect: Connect) -> None:
    with ns.Netns.anonymous() as netns:
        with netns.entered():
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        there = make_proxy(source.address, netns)
        with pytest.raises(ConnectionRefusedError):
            connect(there)
        with netns.entered():
            one = connect(there)
        one.sendall(b"!")
        assert received(one) == MEGABYTE


# --- etcd


def test_a_killed_server_comes_back_with_its_data_and_a_wiped_one_without(etcd: Etcd) -> None:
    etcd.put("/a", '{"x": "y z"}')
    etcd.put("/b", b"\xff\n\0")
    assert etcd.values("/") == {b"/a": b'{"x": "y z"}', b"/b": b"\xff\n\0"}
    etcd.restart()
    assert etcd.values("/a") == {b"/a": b'{"x": "y z"}'}
    assert etcd.revision == 3
    etcd.stop()
    etcd.start()
    assert etcd.delete_prefix("/") == 2
    etcd.wipe()
    etcd.start()
    assert (etcd.values("/"), etcd.revision) == ({}, 1)


def test_many_keys_are_put_and_deleted_in_few_transactions(etcd: Etcd) -> None:
    etcd.fill({f"/{number}": f"value {number}" for number in range(250)})
    assert etcd.revision == 4
    assert etcd.values("/")[b"/249"] == b"value 249"
    etcd.txn("put /1 one", "del /2")
    etcd.empty(f"/{number}" for number in range(3, 250))
    assert etcd.values("/") == {b"/0": b"value 0", b"/1": b"one"}


def test_compacted_history_cannot_be_watched(etcd: Etcd) -> None:
    for number in range(3):
        etcd.put("/a", str(number))
    etcd.compact()
    with pytest.raises(AssertionError, match="required revision has been compacted"):
        etcd.ctl("get", "--rev", "2", "/a")


def test_a_paused_server_takes_connections_and_says_nothing(etcd: Etcd) -> None:
    etcd.pause()
    with pytest.raises(AssertionError, match="deadline exceeded"):
        etcd.ctl("--command-timeout", "200ms", "get", "/a")
    socket.create_connection(etcd.address, timeout=1).close()
    etcd.resume()
    etcd.ctl("get", "/a")


def test_a_server_that_cannot_start_says_why(make_etcd: MakeEtcd) -> None:
    with pytest.raises(AssertionError, match="etcd ended:\nflag provided but not defined: -no-such-option"):
        make_etcd("--no-such-option").start()


def test_three_servers_are_one_cluster_and_its_leader_moves_and_is_replaced(cluster: Cluster) -> None:
    cluster.members[0].put("/a", "1")
    assert [member.values("/") for member in cluster.members] == [{b"/a": b"1"}] * 3
    before = cluster.leader()
    after = cluster.move_leader()
    assert after is not before
    assert cluster.leader() is after
    after.kill()
    assert cluster.leader() is not after
    cluster.members[cluster.members.index(before)].put("/b", "2")
    cluster.start()
    assert poll(lambda: after.values("/b") == {b"/b": b"2"})


def test_who_is_asked_for_a_password_may_do_what_his_role_says(etcd_with_auth: Etcd) -> None:
    etcd = etcd_with_auth
    etcd.add_user("me", "secret", "/mine/")
    etcd.put("/mine/a", "1")
    etcd._user = "me", "secret"
    etcd.put("/mine/a", "2")
    with pytest.raises(AssertionError, match="permission denied"):
        etcd.put("/others/a", "1")
    etcd._user = "me", "guess"
    with pytest.raises(AssertionError, match="invalid user ID or password"):
        etcd.put("/mine/a", "1")
    etcd._user = ROOT
    assert etcd.values("/") == {b"/mine/a": b"2"}


@pytest.mark.parametrize("asks", [False, True])
def test_a_server_with_a_certificate_serves_those_who_know_its_authority(
    make_etcd: MakeEtcd, tls: Callable[..., Tls], asks: bool
) -> None:
    etcd = make_etcd(tls=tls(asks=asks))
    etcd.start()
    etcd.put("/a", "1")
    assert etcd.values("/") == {b"/a": b"1"}
    etcd.tls = None
    with pytest.raises(AssertionError):
        etcd.ctl("--command-timeout", "500ms", "get", "/a")


def test_a_server_is_up_soon(make_etcd: MakeEtcd) -> None:
    server = make_etcd()
    begun = time.monotonic()
    server.start()
    assert time.monotonic() - begun < 20


def test_etcd_through_a_proxy_is_the_same_etcd(etcd: Etcd, proxy: Proxy) -> None:
    etcd.put("/a", "1")
    direct, etcd.address = etcd.address, proxy.address
    assert etcd.values("/") == {b"/a": b"1"}
    assert proxy.accepted == 1
    proxy.silence()
    with pytest.raises(AssertionError, match="deadline exceeded"):
        etcd.ctl("--command-timeout", "200ms", "get", "/a")
    proxy.speak()
    proxy.refuse()
    with pytest.raises(AssertionError):
        etcd.ctl("--command-timeout", "200ms", "get", "/a")
    etcd.address = direct
    assert etcd.values("/") == {b"/a": b"1"}
