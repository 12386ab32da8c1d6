"""Captures: the content of the files, read according to the definition of the format."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from tests.interrupts import boundaries, distinct, interrupted
from tests.live.children import in_a_child
from tests.live.descriptors import descriptors_left
from tests.live.interrupting import Interrupting as InterruptingAt
from tests.live.threads import no_thread_left
from tests.refusing import raises
from tests.starting import wait_interrupted
from tests.witness import open_fds, poll
from vethlib import NetlinkError, VethError
from vethlib.session.core import undo
from vethlib.topology import Topology, line
from vethlib.topology.live import capture
from vethlib.topology.live.capture import Capture

from .plugin import has_program, run


@pytest.fixture
def net() -> Iterator[Topology]:
    with Topology.build("a -- r -- b", routes=True) as built:
        yield built


def frames(path: Path) -> list[tuple[float, bytes]]:
    """The frames of a capture file with their times (pcap, draft-ietf-opsawg-pcap)."""
    data = path.read_bytes()
    magic, major, minor, _zone, _figures, snaplen, link_type = struct.unpack_from("=IHHiIII", data)
    assert (magic, major, minor, link_type) == (0xA1B23C4D, 2, 4, 1)
    found, at = [], 24
    while at < len(data):
        seconds, nanoseconds, size, original = struct.unpack_from("=IIII", data, at)
        assert size == original <= snaplen
        assert nanoseconds < 1_000_000_000
        at += 16
        found.append((seconds + nanoseconds / 1e9, data[at : at + size]))
        at += size
    return found


def send(net: Topology, *payloads: bytes, back: bool = False) -> None:
    with net["b"].socket(type=socket.SOCK_DGRAM) as server, net["a"].socket(type=socket.SOCK_DGRAM) as client:
        server.bind(("", 7))
        server.settimeout(30)
        for payload in payloads:
            client.sendto(payload, (net["b"].ipv4, 7))
            message, sender = server.recvfrom(70000)
            assert message == payload
            if back:
                server.sendto(b"back:" + payload, sender)


def with_payload(path: Path, payload: bytes) -> list[bytes]:
    return [frame for _, frame in frames(path) if frame.endswith(payload)]


def test_every_wire_has_a_file_with_what_passed_it(net: Topology, tmp_path: Path) -> None:
    before = time.time()
    with Capture(net, tmp_path / "new" / "directory") as capture:
        send(net, b"payload-of-this-test")
    assert [path.name for path in capture.files] == ["a-eth0--r-eth0.pcap", "r-eth1--b-eth0.pcap"]
    for path in capture.files:
        (frame,) = with_payload(path, b"payload-of-this-test")
        assert frame[12:14] == b"\x08\x00"
        assert frame[23] == socket.IPPROTO_UDP
        assert socket.inet_ntoa(frame[26:30]) == net["a"].ipv4
        assert socket.inet_ntoa(frame[30:34]) == net["b"].ipv4
        assert all(before - 1 < at < time.time() + 1 for at, _ in frames(path))
    assert capture.missing == {}


def test_both_directions_are_in_it_in_their_order(net: Topology, tmp_path: Path) -> None:
    with Capture(net, tmp_path) as capture:
        send(net, b"ping-1", b"ping-2", back=True)
    seen = [frame[42:] for _, frame in frames(capture.files[1]) if b"ping-" in frame]
    assert seen == [b"ping-1", b"back:ping-1", b"ping-2", b"back:ping-2"]
    times = [at for at, _ in frames(capture.files[1])]
    assert times == sorted(times)


def test_nothing_that_was_sent_before_the_end_is_missing(net: Topology, tmp_path: Path) -> None:
    numbers = [b"number-%05d" % number for number in range(2000)]
    capture = Capture(net, tmp_path)
    send(net, *numbers)
    capture.stop()
    assert [frame[42:] for _, frame in frames(capture.files[0]) if b"number-" in frame] == numbers


def test_a_file_can_be_read_while_it_is_written(net: Topology, tmp_path: Path) -> None:
    with Capture(net, tmp_path) as capture:
        assert not with_payload(capture.files[0], b"early")
        send(net, b"early")
        deadline = time.monotonic() + 60
        while not with_payload(capture.files[0], b"early"):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_vlan_tag_is_put_back(tmp_path: Path) -> None:
    # On the way in the kernel takes it out of the frame; the capture is at the end of `a`.
    tagged = b"\xff" * 6 + bytes(6) + struct.pack(">HHH", 0x8100, 7, 0x88B5) + b"tagged" + bytes(40)
    with (
        Topology.build("a -- b") as net,
        Capture(net, tmp_path) as capture,
        net["b"].socket(socket.AF_PACKET, socket.SOCK_RAW) as sender,
    ):
        sender.bind(("eth0", 0))
        sender.send(tagged)
    assert [frame for _, frame in frames(capture.files[0]) if b"tagged" in frame] == [tagged]


def test_a_link_that_flaps_is_captured_again_when_it_is_up(net: Topology, tmp_path: Path) -> None:
    with Capture(net, tmp_path) as capture:
        send(net, b"before")
        net["a"].set("eth0", up=False)
        net["a"].set("eth0", up=True)
        net["a"].run(["ip", "route", "add", "default", "via", net["r"].ipv4])
        send(net, b"after")
    assert with_payload(capture.files[0], b"before")
    assert with_payload(capture.files[0], b"after")


@pytest.mark.needs_cpus(2)  # an endless sender leaves nothing of a single CPU to others
def test_a_wire_on_which_packets_never_end_delays_neither_other_wires_nor_the_end(
    net: Topology, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = capture._record
    with net["a"].socket(type=socket.SOCK_DGRAM) as sender, net["r"].socket(type=socket.SOCK_DGRAM) as other:

        def followed_by_another(frame: bytes, control: Any) -> bytes:
            if frame.endswith(b"endless"):
                sender.sendto(b"endless", ("10.0.0.255", 9))  # nobody answers this
            return record(frame, control)

        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        monkeypatch.setattr(capture, "_record", followed_by_another)
        started = Capture(net, tmp_path)
        sender.sendto(b"endless", ("10.0.0.255", 9))
        other.sendto(b"other", (net["b"].ipv4, 9))
        deadline = time.monotonic() + 60
        while not with_payload(started.files[1], b"other"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        ending = threading.Thread(target=started.stop, daemon=True)
        ending.start()
        ending.join(60)
        assert not ending.is_alive()


def test_stopping_twice_is_harmless_and_leaves_no_descriptor(net: Topology, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    capture = Capture(net, tmp_path)
    capture.stop()
    capture.stop()
    assert len(os.listdir("/proc/self/fd")) == before


class Interrupting:
    """Interrupts the main thread once, when it is in a function and another thread calls this, and waits for that."""

    def __init__(self, function: Callable[..., object]) -> None:
        self._code = function.__code__
        self._main = threading.main_thread().ident or 0
        self.done = threading.Event()

    def raises(self, *_: object) -> None:
        self.done.set()
        raise KeyboardInterrupt

    def __call__(self) -> None:
        if self.done.is_set() or not poll(self._is_there):
            return
        signal.pthread_kill(self._main, signal.SIGUSR1)
        self.done.wait(0 if threading.get_ident() == self._main else 60)

    def _is_there(self) -> bool:
        frame: FrameType | None = sys._current_frames()[self._main]
        while frame is not None and frame.f_code is not self._code:
            frame = frame.f_back
        return frame is not None


@pytest.fixture
def interrupting() -> Iterator[Interrupting]:
    interrupting = Interrupting(Capture.stop)
    before = signal.signal(signal.SIGUSR1, interrupting.raises)
    yield interrupting
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("during", ["_record", "_Tap.close"])
def test_a_stop_that_is_interrupted_closes_everything_nevertheless(
    net: Topology, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupting: Interrupting, during: str
) -> None:
    place, name = (capture._Tap, "close") if during == "_Tap.close" else (capture, during)
    usual = getattr(place, name)

    def interrupt(*arguments: Any) -> Any:
        interrupting()
        return usual(*arguments)

    monkeypatch.setattr(place, name, interrupt)
    monkeypatch.setattr(capture, "_CLOSERS", 1)  # fewer than there are wires
    before = open_fds()
    with pytest.raises(KeyboardInterrupt), Capture(net, tmp_path) as started:
        send(net, b"before-the-end")
    assert interrupting.done.is_set()
    assert poll(lambda: open_fds() == before)
    started.stop()
    assert open_fds() == before
    assert poll(lambda: not [thread for thread in threading.enumerate() if "captur" in thread.name])
    assert with_payload(started.files[0], b"before-the-end")
    assert started.missing == {}


@pytest.mark.parametrize("end", [Capture.stop, lambda capture: capture.__exit__(None, None, None)])
def test_wherever_a_stop_is_interrupted_it_ends_the_thread_and_closes_everything(
    net: Topology, tmp_path: Path, end: Callable[[Capture], object]
) -> None:
    files = {str(module.__file__) for module in (capture, undo)}
    before = open_fds()
    for at in range(2, 10_000):  # the first place is before it has begun
        started = Capture(net, tmp_path)
        interrupting = InterruptingAt(at, files)
        interrupting.run(lambda started=started: end(started))  # type: ignore[misc]
        assert poll(lambda: open_fds() == before), at
        assert poll(lambda: not [thread for thread in threading.enumerate() if "captur" in thread.name]), at
        if not interrupting.fired:
            break
    assert at > 10


@pytest.mark.parametrize("seconds", [0, 0.2])  # in which the thread begins
def test_a_capture_whose_start_is_interrupted_leaves_nothing(
    net: Topology, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    usual = threading.Event.wait

    def interrupt(event: threading.Event, timeout: float | None = None) -> bool:
        if threading.current_thread() is threading.main_thread():
            monkeypatch.setattr(threading.Event, "wait", usual)
            time.sleep(seconds)
        return wait_interrupted(event, timeout)

    before = open_fds()
    monkeypatch.setattr(threading.Event, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Capture(net, tmp_path)
    assert poll(lambda: not [thread for thread in threading.enumerate() if "captur" in thread.name])
    assert open_fds() == before


def leave_the_block(capture: Capture) -> None:
    with capture:
        pass


@pytest.mark.parametrize("end", [Capture.stop, leave_the_block, lambda capture: capture.missing])
def test_a_forked_child_ends_nothing_of_its_parents(
    net: Topology, tmp_path: Path, end: Callable[[Capture], object]
) -> None:
    with Capture(net, tmp_path) as capture:
        send(net, b"before-the-fork")
        assert in_a_child(lambda: end(capture)) == 0
        send(net, b"after-the-fork")
        assert poll(lambda: bool(with_payload(capture.files[0], b"after-the-fork")))
    for path in capture.files:
        assert len(with_payload(path, b"before-the-fork")) == 1
        assert len(with_payload(path, b"after-the-fork")) == 1


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_capture_that_is_interrupted_at_any_bytecode_while_it_begins_leaves_nothing_open(tmp_path: Path) -> None:
    def begin() -> None:
        Capture(built, tmp_path).stop()

    def belongs(code: CodeType) -> bool:
        return code.co_filename == capture.__file__ and code.co_qualname.startswith(("Capture.__init__", "_Tap.__init"))

    with Topology.build("a -- b") as built:
        begin()
        before = open_fds()
        for boundary in distinct(boundaries(begin, belongs))[:-1]:  # the last is the return
            assert interrupted(begin, boundary), boundary
            assert poll(lambda: open_fds() == before), boundary


def test_a_capture_that_cannot_begin_leaves_nothing_open(net: Topology, tmp_path: Path) -> None:
    (tmp_path / "r-eth1--b-eth0.pcap").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises((OSError, NetlinkError)):
        Capture(net, tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_capture_without_a_thread_is_refused_and_leaves_nothing_open(net: Topology, tmp_path: Path) -> None:
    before = open_fds()
    with no_thread_left(), raises(VethError, errno=errno.EAGAIN):
        Capture(net, tmp_path)
    assert open_fds() == before


def test_a_capture_without_a_descriptor_leaves_nothing_open(
    net: Topology, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "make_room", lambda _number: None)  # as where the hard limit is that low
    before = open_fds()
    for left in range(8):
        with descriptors_left(left), suppress(OSError), Capture(net, tmp_path):
            pass
        assert open_fds() == before


@pytest.mark.parametrize("left", [0, 20])
def test_more_wires_than_the_limit_of_open_files_has_room_for_are_captured(tmp_path: Path, left: int) -> None:
    with Topology.build(line(30), ipv6=False) as net, descriptors_left(left):
        with Capture(net, tmp_path) as running:
            assert net["n0"].ping(net["n1"])
        # Every wire has the kernel's own IPv6 packets, which come when they like.
        ipv4 = b"\x08\x00\x45\x00\x00"  # its EtherType, and how a header of it begins
        contents = [path.read_bytes() for path in running.files]
        assert [ipv4 in content for content in contents] == [True, *[False] * 28]
        assert all(contents)


def test_a_full_disk_ends_the_file_and_is_told_and_harms_nothing_else(net: Topology, tmp_path: Path) -> None:
    run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(tmp_path)])
    try:
        with Capture(net, tmp_path) as capture:
            send(net, *[b"%05d" % number + bytes(995) for number in range(40)])
        assert "No space left on device" in " ".join(capture.missing.values())
        for path in capture.missing:
            assert path.stat().st_size >= 4096
    finally:
        run(["umount", str(tmp_path)])


def test_packets_there_was_no_room_for_are_counted(tmp_path: Path) -> None:
    with Topology.build("a -- b") as net, Capture(net, tmp_path) as capture:
        frame = b"\xff" * 6 + bytes(6) + b"\x88\xb5" + b"not-read" + bytes(1400)
        capture._epoll.modify(capture._taps[0].socket, 0)  # as if the thread never had its turn
        with net["b"].socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind(("eth0", 0))
            while capture.missing == {}:
                for _ in range(500):
                    sender.send(frame)
        (told,) = capture.missing.values()
        counted = int(told.split()[0])
    assert counted > 0
    (told,) = capture.missing.values()
    assert int(told.split()[0]) >= counted
    assert with_payload(capture.files[0], b"not-read" + bytes(1400))


@pytest.mark.skipif(not has_program("tcpdump"), reason="tcpdump is not installed")
def test_tcpdump_reads_it(net: Topology, tmp_path: Path) -> None:
    with Capture(net, tmp_path) as capture:
        send(net, b"seven..")
    told = subprocess.run(["tcpdump", "-nr", capture.files[0]], capture_output=True, text=True, check=False)
    if "Couldn't change to" in told.stderr:
        pytest.skip("tcpdump wants to be a user whom this user namespace does not have")
    assert told.returncode == 0
    assert f"IP {net['a'].ipv4}." in told.stdout
    assert "UDP, length 7" in told.stdout


def test_wires_whose_names_are_the_same_when_joined_have_files_of_their_own(tmp_path: Path) -> None:
    text = "a-b:c(10.1.0.1/24) -- x-y:z(10.1.0.2/24); a:b-c(10.2.0.1/24) -- x:y-z(10.2.0.2/24)"
    with Topology.build(text, ipv6=False) as net, Capture(net, tmp_path) as capture:
        for sender, to in (("a-b", "10.1.0.2"), ("a", "10.2.0.2")):
            with net[sender].socket(type=socket.SOCK_DGRAM) as out:
                out.sendto(f"from {sender}.".encode(), (to, 7))
    assert [path.name for path in capture.files] == ["a-b-c--x-y-z.pcap", "a-b-c--x-y-z--2.pcap"]
    first, second = (path.read_bytes() for path in capture.files)
    assert (b"from a-b." in first, b"from a." in first) == (True, False)
    assert (b"from a-b." in second, b"from a." in second) == (False, True)
