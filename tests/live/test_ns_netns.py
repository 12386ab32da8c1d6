"""Netns: an open namespace as an object."""

from __future__ import annotations

import errno
import gc
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from tests.refusing import raises
from vethlib import ns
from vethlib.errors import InvalidValue, NetnsExists, NetnsNotFound
from vethlib.links import End
from vethlib.ns import Netns, named

HERE = "/proc/thread-self/ns/net"


def ip(*args: str) -> str:
    return subprocess.run(["ip", *args], check=True, capture_output=True, text=True).stdout


def link_names() -> set[str]:
    return {link["ifname"] for link in json.loads(ip("-j", "link"))}


@pytest.fixture(autouse=True)
def _tidy() -> Iterator[None]:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    yield
    for name in ns.names():
        ip("netns", "del", name)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_creating_makes_the_name_and_holds_the_namespace() -> None:
    with Netns.create("blue") as blue:
        assert ip("netns", "list").split() == ["blue"]
        assert blue.ref == str(blue) == "netns:blue"
        assert blue.identity == ns.identity(blue.fd)
        assert blue.identity[1] == os.stat("/run/netns/blue").st_ino
        assert blue.fileno() == blue.fd
    assert ip("netns", "list").split() == ["blue"]


def test_creating_what_exists_fails_or_opens_it() -> None:
    ip("netns", "add", "blue")
    with pytest.raises(NetnsExists):
        Netns.create("blue")
    with Netns.create("netns:blue", exist_ok=True) as blue:
        assert blue.ref == "netns:blue"
        assert blue.identity[1] == os.stat("/run/netns/blue").st_ino


def test_creating_waits_for_another_creator_to_finish() -> None:
    os.makedirs("/run/netns", exist_ok=True)
    os.mknod("/run/netns/blue")

    def finish() -> None:
        time.sleep(0.03)
        ns.call_in_new(lambda: named._mounted("/run/netns/blue"))

    thread = threading.Thread(target=finish)
    thread.start()
    with Netns.create("blue", exist_ok=True) as blue:
        assert blue.identity[1] == os.stat("/run/netns/blue").st_ino
    thread.join()


def test_creating_over_a_leftover_file_says_that_it_is_one() -> None:
    os.makedirs("/run/netns", exist_ok=True)
    os.mknod("/run/netns/left")
    with pytest.raises(NetnsNotFound, match="leftover"):
        Netns.create("left", exist_ok=True)


@pytest.mark.parametrize("ref", ["", "pid:42", "fd:7", "path:/run/netns/blue", "a:b", "a/b", 7, None])
def test_only_a_name_can_be_created(ref: str) -> None:
    with pytest.raises(InvalidValue):
        Netns.create(ref)


def test_a_name_may_hold_a_colon_if_it_is_called_a_name() -> None:
    ip("netns", "add", "a:b")
    with Netns.create("netns:c:d"), Netns.open("netns:a:b"):
        assert ns.names() == ["a:b", "c:d"]
    for name in ns.names():
        ns.remove(name)
    assert ip("netns", "list") == ""


def test_opening_keeps_the_reference_in_canonical_form() -> None:
    ip("netns", "add", "blue")
    with Netns.open("blue") as blue, Netns.open(f"pid:0{os.getpid()}") as mine, Netns.open(blue) as again:
        assert (blue.ref, mine.ref, again.ref) == ("netns:blue", f"pid:{os.getpid()}", "netns:blue")
    with Netns.open("path:/run/netns/blue") as by_path:
        assert by_path.ref == "path:/run/netns/blue"
    with Netns.open("microservice:x", lambda label: "blue") as service:
        assert service.ref == "microservice:x"


def test_what_was_opened_by_a_number_goes_by_its_own() -> None:
    fd = ns.open_fd("")
    with Netns.open(f"fd:{fd}") as first, Netns.open(first) as second, socket.socket() as no_namespace:
        os.close(fd)
        assert first.ref == f"fd:{first.fd}"
        assert second.ref == f"fd:{second.fd}"
        with raises(NetnsNotFound, netns=f"fd:{no_namespace.fileno()}"):
            Netns.open(no_namespace)
        with open(HERE) as file, Netns.open(file) as third:
            assert third == first
            assert third.ref == f"fd:{third.fd}"


def test_home_is_the_empty_reference_and_prints_as_one_that_works_anywhere() -> None:
    with Netns.open("") as home:
        assert home.ref == ""
        assert str(home) == f"fd:{home.fd}"
        assert str(End("veth1", netns=home)) == f"'veth1' in fd:{home.fd}"
        assert home.identity[1] == os.stat(HERE).st_ino
    assert str(home) == "fd:-1"


def test_an_anonymous_one_has_no_name_and_a_usable_reference() -> None:
    with Netns.anonymous() as made:
        assert ns.names() == []
        assert made.ref == f"fd:{made.fd}"
        assert made.identity[1] != os.stat(HERE).st_ino
        with Netns.open(made.ref) as again:
            assert again == made
        ip(
            "link",
            "add",
            "witness",
            "type",
            "veth",
            "peer",
            "name",
            "inside",
            "netns",
            f"/proc/{os.getpid()}/fd/{made.fd}",
        )


def test_an_open_one_keeps_its_namespace_alive_and_a_closed_one_does_not() -> None:
    with Netns.create("blue") as blue:
        ip("link", "add", "keeper", "type", "veth", "peer", "name", "inside", "netns", "blue")
        ns.remove("blue")
        time.sleep(0.05)
        assert "keeper" in link_names()
        with blue.entered():
            assert "inside" in {name for _, name in socket.if_nameindex()}
    deadline = time.monotonic() + 30
    while "keeper" in link_names():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_entering_goes_in_and_comes_back() -> None:
    here = os.stat(HERE).st_ino
    with Netns.anonymous() as made:
        with made.entered():
            assert os.stat(HERE).st_ino == made.identity[1]
        assert os.stat(HERE).st_ino == here


def test_two_spellings_of_one_namespace_are_equal() -> None:
    ip("netns", "add", "blue")
    with Netns.open("blue") as one, Netns.open("path:/run/netns/blue") as other, Netns.open("") as home:
        assert one == other
        assert hash(one) == hash(other)
        assert one != home
        assert {one, other, home} == {one, home}
        assert one != "netns:blue"


def test_it_is_true_whatever_it_is_called() -> None:
    home = Netns.open("")
    truths = [bool(home)]
    home.close()
    assert [*truths, bool(home)] == [True, True]


def test_a_closed_one_says_so_and_may_be_closed_again() -> None:
    netns = Netns.open("")
    states = [netns.closed]
    assert "closed" not in repr(netns)
    netns.close()
    netns.close()
    assert [*states, netns.closed] == [False, True]
    assert repr(netns).startswith("<Netns '' ")
    assert repr(netns).endswith(" closed>")
    for use in (lambda: netns.fd, netns.fileno, netns.entered):
        with pytest.raises(NetnsNotFound, match="closed"):
            use()


def test_an_unclosed_one_warns_and_closes() -> None:
    netns = Netns.anonymous()
    fd = netns.fd
    with pytest.warns(ResourceWarning, match="unclosed <Netns 'fd:"):
        del netns
    with pytest.raises(OSError) as caught:
        os.fstat(fd)
    assert caught.value.errno == errno.EBADF


def test_one_that_could_not_be_made_does_not_warn() -> None:
    with pytest.raises(TypeError):
        Netns()  # type: ignore[call-arg]
    gc.collect()


def test_an_open_namespace_reaches_another_process_as_its_reference() -> None:
    import pickle

    with ns.Netns.anonymous() as anonymous:
        assert pickle.loads(pickle.dumps(anonymous)) == f"path:/proc/{os.getpid()}/fd/{anonymous.fd}"


def test_a_socket_of_a_namespace_stays_there_wherever_it_is_used(home: ns.Netns) -> None:
    with ns.Netns.anonymous() as inside:
        with inside.entered():
            ip("link", "set", "lo", "up")
        with inside.socket() as listening, inside.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            assert type(listening) is socket.socket
            listening.bind(("127.0.0.1", 7))
            listening.listen()
            client.connect(("127.0.0.1", 7))
            with socket.socket() as at_home:
                assert at_home.connect_ex(("127.0.0.1", 7)) != 0
    with pytest.raises(NetnsNotFound):
        inside.socket()


def test_a_socket_that_cannot_be_had_is_an_error_of_the_caller_at_home(home: ns.Netns) -> None:
    before = os.stat("/proc/thread-self/ns/net").st_ino
    with ns.Netns.anonymous() as inside, pytest.raises(OSError, match="supported"):
        inside.socket(12345)
    assert os.stat("/proc/thread-self/ns/net").st_ino == before
