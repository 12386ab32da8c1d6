"""A node of a topology: entering it, running things in it, and its end."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import pytest

from tests.live.descriptors import no_descriptor_left
from tests.live.threads import no_thread_left
from tests.programs import see_end
from tests.refusing import raises
from tests.witness import open_fds, poll
from vethlib import LinkNotFound, NetnsNotFound, VethError
from vethlib.topology import Node, Topology

HERE = "/proc/thread-self/ns/net"


@pytest.fixture
def net() -> Iterator[Topology]:
    with Topology.build("a -- b; node lonely") as built:
        yield built


@pytest.fixture
def node(net: Topology) -> Node:
    return net["a"]


def inode() -> int:
    return os.stat(HERE).st_ino


def test_a_node_without_wires_has_its_loopback_up_and_nothing_else(net: Topology) -> None:
    (lo,) = json.loads(net["lonely"].run(["ip", "-j", "addr"]).stdout)
    assert lo["ifname"] == "lo"
    assert "UP" in lo["flags"]
    assert {address["local"] for address in lo["addr_info"]} == {"127.0.0.1", "::1"}


def test_inside_a_with_the_thread_is_in_the_node_and_after_it_home(net: Topology) -> None:
    home = inode()
    a, b = net["a"], net["b"]
    with a:
        assert inode() == a.netns.identity[1]
        with b, a:
            assert inode() == a.netns.identity[1]
        assert inode() == a.netns.identity[1]
    assert inode() == home


def test_an_exception_inside_a_with_comes_out_at_home(node: Node) -> None:
    home = inode()
    with pytest.raises(ZeroDivisionError), node:
        _ = 1 / 0
    assert inode() == home


def test_a_node_can_be_entered_by_an_exit_stack_and_by_direct_calls_within_blocks(net: Topology) -> None:
    home, (a, b) = inode(), (net["a"], net["b"])
    inside, elsewhere = a.netns.identity[1], b.netns.identity[1]
    with a:
        with ExitStack() as stack:
            stack.enter_context(b)
            assert inode() == elsewhere
            with a:
                assert inode() == inside
            assert inode() == elsewhere
            stack.enter_context(a)
            assert inode() == inside
        assert inode() == inside
        b.__enter__()
        assert inode() == elsewhere
        with b, a:
            assert inode() == inside
        assert inode() == elsewhere
        b.__exit__(None, None, None)
        assert inode() == inside
    assert inode() == home


def test_what_is_asked_for_the_end_of_a_block_and_does_not_end_one_changes_nothing(node: Node) -> None:
    home = inode()
    assert hasattr(node, "__exit__")
    kept = node.__exit__
    node.__enter__()
    kept(None, None, None)
    assert inode() == home
    with node:
        assert isinstance(node, AbstractContextManager)
        assert hasattr(node, "__exit__")
    assert inode() == home
    with pytest.raises(RuntimeError):
        node.__exit__(None, None, None)
    assert inode() == home


def test_a_node_that_could_not_be_entered_is_entered_and_left_afterwards(node: Node) -> None:
    home, before = inode(), open_fds()
    for enter in (lambda: ExitStack().enter_context(node), node.__enter__, lambda: in_block(node)):
        with no_descriptor_left(), pytest.raises((OSError, VethError)):
            enter()
        assert inode() == home
    with node:
        assert inode() == node.netns.identity[1]
    node.__enter__()
    node.__exit__(None, None, None)
    assert inode() == home
    with pytest.raises(RuntimeError):
        node.__exit__(None, None, None)
    assert open_fds() == before


def in_block(node: Node) -> None:
    with node:
        raise AssertionError("entered")


def test_two_threads_may_be_in_one_node_at_once(node: Node) -> None:
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with node:
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=stay)
    thread.start()
    home = inode()
    try:
        assert entered.wait(10)
        with node:
            pass
        assert inode() == home
    finally:
        leave.set()
        thread.join()


def test_call_runs_a_function_inside_in_a_thread_of_its_own(node: Node) -> None:
    def look(number: int, *, word: str) -> tuple[int, str, int, int]:
        return number, word, inode(), threading.get_ident()

    number, word, where, thread = node.call(look, 7, word="seven")
    assert (number, word, where) == (7, "seven", node.netns.identity[1])
    assert thread != threading.get_ident()


def test_what_a_called_function_raises_is_raised_here(node: Node) -> None:
    def fail() -> None:
        raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        node.call(fail)


USES_OF_A_THREAD: dict[str, Callable[[Node], object]] = {
    "call": lambda node: node.call(inode),
    "submit": lambda node: node.submit(inode),
    "run": lambda node: node.run(["true"]),
    "start": lambda node: node.start(["true"]),
    "set_file": lambda node: node.set_file("/etc/hosts", ""),
}


@pytest.mark.parametrize(
    ("use", "is_first"),
    # Before the first program, a file is not replaced yet, which needs no thread.
    [(use, is_first) for use in USES_OF_A_THREAD for is_first in (True, False) if use != "set_file" or not is_first],
)
def test_without_a_thread_a_node_refuses_what_needs_one_and_does_it_later(node: Node, use: str, is_first: bool) -> None:
    if not is_first:
        node.run(["true"])
    node.ping(node.ipv4)  # which prepares the namespace
    descriptors = open_fds()
    with no_thread_left(), raises(VethError, errno=errno.EAGAIN):
        USES_OF_A_THREAD[use](node)
    assert open_fds() == descriptors
    USES_OF_A_THREAD[use](node)
    node.set_file("/etc/hosts", "10.9.9.9 elsewhere\n")  # mounts were not taken for forbidden
    assert node.run(["cat", "/etc/hosts"]).stdout == "10.9.9.9 elsewhere\n"


def test_submit_does_not_wait(node: Node) -> None:
    leave = threading.Event()
    future = node.submit(leave.wait, 10)
    try:
        assert not future.done()
    finally:
        leave.set()
    assert future.result(10) is True


def test_a_submitted_function_cannot_be_cancelled_once_it_runs(node: Node) -> None:
    leave = threading.Event()
    future = node.submit(leave.wait, 10)
    assert not future.cancel()
    leave.set()
    assert future.result(10)


def test_a_socket_of_the_node_works_from_outside(net: Topology) -> None:
    a, b = net["a"], net["b"]
    for family, server_at in ((socket.AF_INET, b.ipv4), (socket.AF_INET6, b.ipv6)):
        with b.socket(family) as server, a.socket(family) as client:
            server.bind((server_at, 7))
            server.listen()
            client.settimeout(10)
            client.connect((server_at, 7))
            accepted, peer = server.accept()
            with accepted:
                client.sendall(b"hello")
                assert accepted.recv(5) == b"hello"
            assert peer[0] == (a.ipv4 if family == socket.AF_INET else a.ipv6)


def test_run_gives_the_output_as_text(node: Node) -> None:
    links = json.loads(node.run(["ip", "-j", "link"]).stdout)
    assert [link["ifname"] for link in links] == ["lo", "eth0"]


def test_a_program_that_fails_raises_with_what_it_said_in_the_notes(node: Node) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        node.run(["ip", "link", "show", "nothing"])
    assert any("nothing" in note for note in caught.value.__notes__)


def test_options_of_run_are_those_of_subprocess(node: Node) -> None:
    assert node.run(["sh", "-c", "cat; exit 3"], input="in", check=False).returncode == 3


def test_a_program_that_does_not_exist_leaves_the_thread_at_home(node: Node) -> None:
    home = inode()
    with pytest.raises(FileNotFoundError):
        node.run(["/no/such/program"])
    assert inode() == home


def test_a_started_program_runs_inside_and_ends_with_the_node(net: Topology) -> None:
    a = net["a"]
    process = a.start(["sleep", "600"])
    assert os.stat(f"/proc/{process.pid}/ns/net").st_ino == a.netns.identity[1]
    a.close()
    assert process.returncode == -signal.SIGTERM


def test_what_a_started_program_starts_ends_with_it(net: Topology) -> None:
    process = net["a"].start(["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    grandchild = int(process.stdout.readline())
    net.close()
    see_end(grandchild)


def test_what_a_started_program_leaves_behind_is_killed(net: Topology) -> None:
    code = "(trap '' TERM; while :; do sleep 1; done) & echo $!; wait"
    process = net["a"].start(["sh", "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    stubborn = int(process.stdout.readline())
    net.close()
    see_end(stubborn)


def test_what_was_written_to_a_program_and_not_read_is_no_obstacle(net: Topology) -> None:
    process = net["a"].start(["sleep", "600"], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write("never read")
    net.close()
    assert process.returncode is not None


def test_an_interruption_of_the_end_kills_what_was_to_end(net: Topology) -> None:
    process = net["a"].start(["sh", "-c", "trap '' TERM; echo up; sleep 600"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            net.close()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert process.returncode == -signal.SIGKILL
    assert net.closed


def test_what_was_started_ends_with_a_script_that_closes_nothing() -> None:
    code = """
from vethlib.topology import Topology
net = Topology.build("a -- b")
print(net["a"].start(["sleep", "600"]).pid)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    see_end(int(done.stdout))


def test_a_node_within_a_node_that_cannot_be_entered_leaves_the_outer_one_whole(net: Topology) -> None:
    home = inode()
    net["b"].close()
    with net["a"]:
        with pytest.raises(NetnsNotFound), net["b"]:
            pass
        assert inode() == net["a"].netns.identity[1]
    assert inode() == home


def test_a_started_program_that_ignores_sigterm_is_killed(net: Topology) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    process = net["a"].start([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    net.close()
    assert process.returncode == -signal.SIGKILL


def test_links_of_a_node_have_their_addresses(node: Node) -> None:
    eth0 = next(link for link in node.links() if link.name == "eth0")
    assert {str(one) for one in eth0.addresses} >= {"10.0.0.1/24", "fd00::1/64"}


def test_set_changes_a_link_of_the_node(net: Topology) -> None:
    net["a"].set("eth0", up=False)
    (link,) = json.loads(net["a"].run(["ip", "-j", "link", "show", "eth0"]).stdout)
    assert "UP" not in link["flags"]
    with pytest.raises(LinkNotFound):
        net["a"].set("eth7", up=False)


def test_stats_count_what_passed(net: Topology) -> None:
    before = net["b"].stats("eth0").rx_packets
    with net["a"].socket(type=socket.SOCK_DGRAM) as sender:
        for _ in range(5):
            sender.sendto(b"x", (net["b"].ipv4, 9))
    # They wait for the answer to ARP, which comes with a softirq.
    assert poll(lambda: net["b"].stats("eth0").rx_packets >= before + 5)


def test_a_node_without_addresses_says_so(net: Topology) -> None:
    with raises(LookupError):
        _ = net["lonely"].ipv4


def test_a_closed_node_cannot_be_entered(net: Topology) -> None:
    node = net["a"]
    node.close()
    node.close()
    assert node.closed
    with pytest.raises(NetnsNotFound), node:
        pass
    with pytest.raises(NetnsNotFound):
        node.call(inode)
    with pytest.raises(NetnsNotFound):
        node.socket()


@pytest.mark.parametrize("impair", ["kernel", "userspace"])
def test_when_a_node_is_closed_its_peers_are_gone(impair: Any) -> None:
    text = "a -- b; c -- a -- b" if impair == "kernel" else "a -- b delay=1ms; c -- a -- b"
    with Topology.build(text, impair=impair) as net:
        net["a"].close()
        for name in ("b", "c"):
            assert [link["ifname"] for link in json.loads(net[name].run(["ip", "-j", "link"]).stdout)] == ["lo"]


def test_a_node_is_closed_although_a_socket_keeps_its_namespace(net: Topology) -> None:
    with net["a"].socket():
        net["a"].close()
        assert [link.name for link in net["b"].links()] == ["lo", "eth0"]


@pytest.mark.parametrize("use", ["with", "run", "start", "call", "submit"])
def test_a_node_knows_that_something_was_run_in_it(node: Node, use: str) -> None:
    assert not node.was_entered
    if use == "with":
        with node:
            pass
    elif use == "run":
        node.run(["true"])
    elif use == "start":
        node.start(["true"])
    elif use == "call":
        node.call(inode)
    else:
        node.submit(inode).result()
    assert node.was_entered


@pytest.mark.parametrize(
    ("before", "after", "address"),
    [
        ({"up": False}, {"up": True}, "fd00::1"),
        ({"remove_addresses": ["fd00::9/64"]}, {"add_addresses": ["fd00::9/64"]}, "fd00::9"),
        ({"addresses": ["10.0.0.1/24"], "mtu": 1279}, {"mtu": 1500, "add_addresses": ["fd00::9/64"]}, "fd00::9"),
    ],
    ids=["up", "address", "mtu"],
)
def test_ipv6_works_as_soon_as_a_link_is_set(
    net: Topology, before: dict[str, Any], after: dict[str, Any], address: str
) -> None:
    net["a"].set("eth0", add_addresses=["fd00::9/64"])
    for _ in range(20):
        net["a"].set("eth0", **before)
        net["a"].set("eth0", **after)
        with net["a"].socket(socket.AF_INET6) as server:
            server.bind((address, 7))


def test_ipv6_works_at_both_ends_as_soon_as_the_second_is_up(net: Topology) -> None:
    for _ in range(20):
        for node in net.values():
            if node.addresses:
                node.set("eth0", up=False)
        net["a"].set("eth0", up=True)  # without a carrier: nothing to wait for
        net["b"].set("eth0", up=True)
        for name in ("a", "b"):
            with net[name].socket(socket.AF_INET6) as server:
                server.bind((net[name].ipv6, 7))


@pytest.mark.parametrize("changed", ["a", "b"])
@pytest.mark.parametrize("change", [{"altnames": ["other"]}, {"new_name": "other"}], ids=["altname", "name"])
def test_ipv6_works_at_both_ends_whatever_their_links_are_called(change: dict[str, Any], changed: str) -> None:
    with Topology.build("a(10.0.0.1/24) -- b(2001:db8::1/64)") as net:
        net[changed].set("eth0", **change)
        names = {"a": "eth0", "b": "eth0"} | {changed: "other"}
        for _ in range(100):
            for name in ("b", "a"):
                net[name].set(names[name], up=False)
            for name in ("b", "a"):
                net[name].set(names[name], up=True)
            with net["b"].socket(socket.AF_INET6) as server:
                server.bind((net["b"].ipv6, 7))


def test_a_link_local_address_is_found_whatever_the_links_are_called() -> None:
    with Topology.build("a(fe80::1/64) -- b(fe80::2/64)") as net:
        for node in net.values():
            node.set("eth0", new_name=f"of-{node.name}")
        assert net["a"].ping(net["b"])


def test_a_link_whose_other_end_is_down_or_gone_is_not_waited_for(net: Topology) -> None:
    net["b"].set("eth0", up=False)
    net["a"].set("eth0", up=False)
    began = time.monotonic()
    assert net["a"].set("eth0", up=True).up
    net["b"].set("eth0", new_name="other")
    assert net["a"].set("eth0", up=True).up
    assert time.monotonic() - began < 5
    net["b"].close()
    with pytest.raises(LinkNotFound):
        for _ in range(1000):  # the kernel takes the pair away some time after the namespace
            net["a"].set("eth0", up=True)
            time.sleep(0.01)
