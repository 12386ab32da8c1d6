"""Entering and leaving namespaces, judged by stat(2) on /proc and by the ip program."""

from __future__ import annotations

import ctypes
import errno
import gc
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from tests.capabilities import dropped
from tests.live.threads import in_thread, in_threads
from tests.refusing import raises
from vethlib import ns
from vethlib.errors import InvalidValue, NetlinkError, NetnsNotFound, NotPermitted
from vethlib.ns import entering

HERE = "/proc/thread-self/ns/net"
BLUE, RED = "/run/netns/blue", "/run/netns/red"


def ip(*args: str) -> str:
    return subprocess.run(["ip", *args], check=True, capture_output=True, text=True).stdout


def link_names(*args: str) -> set[str]:
    return {link["ifname"] for link in json.loads(ip(*args, "-j", "link"))}


def inode(path: str = HERE) -> int:
    return os.stat(path).st_ino


def open_fds() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def _two_namespaces() -> Iterator[None]:
    ip("netns", "add", "blue")
    ip("netns", "add", "red")
    home, fds = inode(), open_fds()
    try:
        yield
        assert inode() == home
        assert open_fds() == fds
    finally:  # otherwise all later tests of this process would fail, too
        for name in ns.names():
            ip("netns", "del", name)


@pytest.fixture
def fds() -> Iterator[list[int]]:
    fds = [ns.open_fd("blue"), ns.open_fd("red")]
    yield fds
    for fd in fds:
        os.close(fd)


def test_a_block_is_inside_and_afterwards_one_is_home() -> None:
    home = inode()
    with ns.entered("blue"):
        assert inode() == inode(BLUE)
    assert inode() == home


def test_a_socket_made_in_a_block_belongs_there() -> None:
    ip("-n", "blue", "link", "add", "only-in-blue", "type", "veth", "peer", "name", "other")
    with ns.entered("blue"), socket.socket() as inside:
        assert "only-in-blue" in {name for _, name in socket.if_nameindex()}
    assert "only-in-blue" not in {name for _, name in socket.if_nameindex()}
    assert inside.fileno() == -1


def test_blocks_nest_and_each_returns_to_where_it_began() -> None:
    home = inode()
    with ns.entered("blue"):
        with ns.entered("red"):
            assert inode() == inode(RED)
            with ns.entered(""):
                assert inode() == inode(RED)
        assert inode() == inode(BLUE)
    assert inode() == home


def test_an_exception_leaves_the_block_and_the_namespace() -> None:
    home = inode()
    with pytest.raises(ZeroDivisionError), ns.entered("blue"):
        raise ZeroDivisionError
    assert inode() == home


def test_return_break_and_continue_leave_the_namespace() -> None:
    home = inode()

    def returns() -> int:
        with ns.entered("blue"):
            return inode()

    assert returns() == inode(BLUE)
    for turn in range(2):
        with ns.entered("blue"):
            if turn == 0:
                continue
            break
    assert inode() == home


def test_an_exit_stack_can_hold_a_block() -> None:
    home = inode()
    with ExitStack() as stack:
        stack.enter_context(ns.entered("blue"))
        red = stack.enter_context(ns.Netns.open("red"))
        stack.enter_context(red.entered())
        assert inode() == inode(RED)
    assert inode() == home


def test_a_block_is_good_for_one_time() -> None:
    block = ns.entered("blue")
    with block:
        pass
    with raises(RuntimeError), block:
        pass


def test_home_is_where_the_thread_is_when_the_block_begins() -> None:
    block = ns.entered("blue")
    with ns.entered("red"):
        with block:
            assert inode() == inode(BLUE)
        assert inode() == inode(RED)


def test_a_block_that_is_never_entered_does_nothing() -> None:
    before = open_fds()
    ns.entered("blue")
    assert open_fds() == before


def test_no_other_thread_is_moved() -> None:
    home = inode()
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with ns.entered("blue"):
            assert inode() == inode(BLUE)
            entered.set()
            leave.wait()
            assert inode() == inode(BLUE)

    def look() -> None:
        entered.wait()
        assert inode() == home
        with ns.entered("red"):
            leave.set()

    looking = threading.Thread(target=in_thread, args=(stay,))
    looking.start()
    in_thread(look)
    assert inode() == home
    looking.join()


def test_threads_can_be_in_different_namespaces_at_once(fds: list[int]) -> None:
    wrong: list[str] = []

    def hop(fd: int, path: str) -> None:
        home, there = inode(), inode(path)
        for _ in range(300):
            if ns.call_in(fd, inode) != there:
                wrong.append(f"call_in {path}")
            with ns.entered(f"fd:{fd}"):
                if inode() != there:
                    wrong.append(f"entered {path}")
            if ns.map_in(fds, inode) != [inode(BLUE), inode(RED)] or inode() != home:
                wrong.append("home")

    in_threads(6, lambda turn: hop(fds[turn % 2], (BLUE, RED)[turn % 2]))
    assert wrong == []


def test_a_block_keeps_its_namespace_no_longer_than_it_lasts() -> None:
    ip("link", "add", "witness", "type", "veth", "peer", "name", "inside", "netns", "blue")
    with ns.Netns.open("") as home, ns.entered("blue"):
        ip("netns", "del", "blue")
        with ns.entered(home):
            time.sleep(0.05)
            assert "witness" in link_names()  # we are still in it
    deadline = time.monotonic() + 30
    while "witness" in link_names():
        assert time.monotonic() < deadline, "the namespace outlived the block"
        time.sleep(0.01)


def test_call_in_returns_what_the_function_returns(fds: list[int]) -> None:
    home = inode()
    assert ns.call_in(fds[0], inode) == inode(BLUE)
    assert inode() == home


def test_a_number_is_that_of_a_descriptor_with_all_its_bits(fds: list[int]) -> None:
    for number in ((1 << 32) + fds[0], fds[0] - (1 << 32), 10**5000):
        for call in (lambda fd: ns.call_in(fd, inode), lambda fd: ns.map_in([fds[1], fd], inode)):
            with raises(InvalidValue, field="fd"):
                call(number)
        assert not ns.is_here(number)


def test_call_in_raises_what_the_function_raises(fds: list[int]) -> None:
    home = inode()

    def fail() -> None:
        assert inode() == inode(BLUE)
        raise KeyError("no")

    with pytest.raises(KeyError, match="no"):
        ns.call_in(fds[0], fail)
    assert inode() == home


def test_call_in_comes_back_from_wherever_the_function_went(fds: list[int]) -> None:
    home = inode()
    ns.call_in(fds[0], lambda: entering._enter(fds[1], 0))
    assert inode() == home


def test_map_in_goes_through_them_in_order(fds: list[int]) -> None:
    home = inode()
    assert ns.map_in([*fds, fds[0]], inode) == [inode(BLUE), inode(RED), inode(BLUE)]
    assert ns.map_in([], inode) == []
    assert inode() == home


def test_map_in_walks_an_iterator_at_home(fds: list[int]) -> None:
    home, seen = inode(), []

    def lazily() -> Iterator[int]:
        for fd in fds:
            seen.append(inode())
            yield fd

    ns.map_in(lazily(), bool)
    assert seen == [home, home]


def test_map_in_closes_what_it_has_when_a_call_fails(fds: list[int]) -> None:
    home = inode()
    made: list[Any] = [socket.socket(), "no close() here"]
    results = iter(made)

    with pytest.raises(StopIteration):
        ns.map_in([*fds, fds[0]], lambda: next(results))
    assert made[0].fileno() == -1
    assert inode() == home


def test_map_in_comes_home_from_a_closed_fd(fds: list[int]) -> None:
    home = inode()
    with raises(NetnsNotFound, netns="fd:2147483647"):
        ns.map_in([fds[0], 2147483647], inode)
    assert inode() == home


def test_call_in_new_is_in_a_namespace_of_its_own() -> None:
    home = inode()
    inside = ns.call_in_new(lambda: (inode(), [name for _, name in socket.if_nameindex()]))
    assert inside[0] not in (home, inode(BLUE))
    assert inside[1] == ["lo"]
    assert inode() == home


@pytest.mark.parametrize(
    ("path", "message"),
    [("/dev/null", r"fd \d+ is not a network namespace"), ("/proc/self/ns/mnt", r"fd \d+ is not a network namespace")],
)
def test_entering_what_is_no_namespace_is_refused(path: str, message: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(NetnsNotFound, match=message):
            ns.call_in(fd, inode)
    finally:
        os.close(fd)


def test_entering_needs_a_capability_and_says_which(fds: list[int]) -> None:
    home = inode()
    with dropped():
        for call in (
            lambda: ns.call_in(fds[0], inode),
            lambda: ns.entered("blue").__enter__(),
            lambda: ns.map_in(fds, inode),
            lambda: ns.call_in_new(inode),
        ):
            with raises(NotPermitted, capability="CAP_SYS_ADMIN", errno=errno.EPERM):
                call()
    assert inode() == home


def test_other_refusals_of_the_kernel_carry_their_errno() -> None:
    # No way to have setns or unshare run out of memory on demand: what they would then say is asked for directly.
    assert str(entering._not_entered(errno.ENOMEM, 7)) == "cannot enter fd 7: Cannot allocate memory (ENOMEM)"
    ctypes.set_errno(errno.ENOMEM)
    with raises(NetlinkError, errno=errno.ENOMEM) as caught:
        entering._check_unshared(-1, None, ())
    assert caught.value.errno == errno.ENOMEM


def test_too_many_namespaces_name_the_limit() -> None:
    limit = "/proc/sys/user/max_net_namespaces"
    code = f"""
from vethlib import ns
open({limit!r}, "w").write("1")
try:
    ns.Netns.anonymous()
except OSError as error:
    print(error.errno, error)
"""
    # In a user namespace of its own, for there the limit is its own too.
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert done.stdout.startswith(f"{errno.ENOSPC} "), done.stderr
    assert "user.max_net_namespaces" in done.stdout


def test_a_thread_that_cannot_return_is_told_so() -> None:
    def give_rights_away_inside() -> None:
        home, rights = ns.current(), dropped()

        def lose_rights() -> None:
            with ns.entered("blue"):
                rights.__enter__()
                raise KeyError  # which must not hide it

        with raises(NotPermitted, errno=errno.EPERM) as caught:
            lose_rights()
        assert isinstance(caught.value.__context__, KeyError)
        assert inode() == inode(BLUE)
        rights.__exit__(None, None, None)
        entering._enter(home.fileno(), 0)

    in_thread(give_rights_away_inside)


def test_a_thread_whose_way_back_was_closed_is_told_so(fds: list[int]) -> None:
    def close_it_inside() -> None:
        home = ns.current()
        link = os.readlink(f"/proc/self/fd/{home.fileno()}")

        def open_here() -> set[int]:
            paths = {fd: f"/proc/self/fd/{fd}" for fd in range(1000)}
            return {fd for fd, path in paths.items() if os.path.lexists(path) and os.readlink(path) == link}

        of_others = open_here()

        def close_way_back() -> None:
            for fd in open_here() - of_others:
                os.close(fd)

        with raises(NetlinkError, errno=errno.EBADF):
            ns.call_in(fds[0], close_way_back)
        assert inode() == inode(BLUE)
        entering._enter(home.fileno(), 0)

    in_thread(close_it_inside)


class _Foreign:
    """A namespace as another library has it."""

    def __init__(self) -> None:
        self._file = open(HERE)  # noqa: SIM115

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()


class _WithAttribute(_Foreign):
    was_entered: object = "never"


class _WithProperty(_Foreign):
    @property
    def was_entered(self) -> str:
        return "never"


@pytest.mark.parametrize("kind", [_Foreign, _WithAttribute, _WithProperty])
def test_nothing_is_written_to_an_object_of_another_library(kind: type[_Foreign]) -> None:
    with closing(kind()) as foreign:
        with ns.entered(foreign):
            pass
        ns.run(foreign, ["true"])
        assert getattr(foreign, "was_entered", "never") == "never"
