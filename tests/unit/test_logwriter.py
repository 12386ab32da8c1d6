"""The log of an agent: a reader that does not read stops nobody, and learns later what was lost."""

from __future__ import annotations

import errno
import logging
import os
import re
import socket
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.starting import wait_interrupted
from tests.witness import poll
from vethlib.cli.term.logwriter import LineWriter, LogHandler, Sparse

MOST = 100_000
Ends = tuple[int, int]  # for writing, and for reading


def pipe() -> Ends:
    read, write = os.pipe()
    return write, read


def unix_socket() -> Ends:
    write, read = socket.socketpair()
    return write.detach(), read.detach()


def terminal() -> Ends:
    read, write = os.openpty()
    tty.setraw(write)
    return write, read


@pytest.fixture(params=[pipe, unix_socket, terminal])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    write, read = request.param()
    os.set_blocking(read, False)
    yield write, read
    for end in (write, read):
        os.close(end)


def writer(number: int) -> LineWriter:
    return LineWriter(number, MOST, lambda lost: f"lost {lost}\n".encode())


def lines(number: int) -> list[bytes]:
    return [b"%06d %s\n" % (index, b"x" * 80) for index in range(number)]


class Reader:
    """What has been read so far."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.data = b""

    def has(self, number: int) -> Callable[[], bool]:
        def enough() -> bool:
            try:
                self.data += os.read(self._number, 1 << 20)
            except BlockingIOError:
                pass
            return self.data.count(b"\n") >= number

        return enough


def test_lines_that_are_read_are_written_in_order_and_none_is_lost(ends: Ends) -> None:
    log, reader, sent = writer(ends[0]), Reader(ends[1]), lines(5000)
    done = threading.Event()

    def read() -> None:
        poll(reader.has(len(sent)), 30)
        done.set()

    threading.Thread(target=read).start()
    for number, line in enumerate(sent):
        log.write(line)
        if number % 500 == 0:  # on a busy machine the reader may be far behind, and then lines are lost
            assert poll(lambda: reader.data.count(b"\n") >= number - 500, 30)  # noqa: B023 - called at once
    assert log.close(30)
    assert done.wait(30)
    assert reader.data == b"".join(sent)


def test_a_reader_that_stalls_delays_nobody_and_is_told_what_was_lost(ends: Ends) -> None:
    log, reader, sent = writer(ends[0]), Reader(ends[1]), lines(20_000)
    began = time.monotonic()
    for line in sent:
        log.write(line)
    assert time.monotonic() - began < 20
    assert poll(lambda: reader.has(0)() and told(reader.data) == len(sent))
    received = reader.data.splitlines(keepends=True)
    kept = [line for line in received if not line.startswith(b"lost")]
    lost = sum(int(line.split()[1]) for line in received if line.startswith(b"lost"))
    assert kept == sorted(set(kept) & set(sent))
    assert len(b"".join(kept)) >= MOST - 200
    assert len(kept) + lost == len(sent)
    log.write(b"again\n")
    assert poll(lambda: reader.has(0)() and reader.data.endswith(b"again\n"))
    assert log.close(60)


def told(data: bytes) -> int:
    """Return the number of lines, including those that are reported as lost."""
    return sum(int(line[5:]) if line.startswith(b"lost ") else 1 for line in data.splitlines())


def test_the_end_waits_for_a_reader_but_not_for_ever(ends: Ends) -> None:
    log = writer(ends[0])
    for line in lines(5000):
        log.write(line)
    began = time.monotonic()
    assert not log.close(0.2)
    assert 0.15 < time.monotonic() - began < 20


def test_without_threads_lines_are_written_as_they_can_be(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    log, reader = writer(ends[0]), Reader(ends[1])
    for line in lines(20_000):
        log.write(line)
    assert reader.has(0)() or True
    log.write(b"again\n")
    if "terminal" not in request.node.name:  # which cannot be written to without the danger of waiting
        assert reader.has(100)()
        assert reader.data.startswith(lines(1)[0])


@pytest.mark.parametrize(
    "refusal",
    [
        OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP)),
        NotImplementedError("pwritev: flags unavailable on this platform"),
    ],
    ids=["kernel", "C library"],
)
def test_where_no_such_writing_is_known_poll_is_asked(monkeypatch: pytest.MonkeyPatch, refusal: Exception) -> None:
    def refuse(*_: object) -> int:
        raise refusal

    monkeypatch.setattr(os, "pwritev", refuse)
    write, read = pipe()
    os.set_blocking(read, False)
    log, reader = writer(write), Reader(read)
    for line in lines(3000):
        log.write(line)
    assert poll(reader.has(1000))
    assert reader.data == b"".join(lines(3000))[: len(reader.data)]
    assert poll(lambda: reader.has(0)() and b"lost" in reader.data)
    log.close(60)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("gone", ["/dev/full", "a pipe without a reader", "a terminal that hung up"])
def test_what_can_never_be_written_is_dropped(gone: str) -> None:
    if gone == "/dev/full":
        number = os.open(gone, os.O_WRONLY)
    else:
        number, read = pipe() if "pipe" in gone else terminal()
        os.close(read)
    log = writer(number)
    for line in lines(100):
        log.write(line)
    assert log.close(60)
    os.close(number)


def test_a_terminal_that_was_stopped_goes_on_where_it_was() -> None:
    write, read = terminal()
    os.set_blocking(read, False)
    log, reader = writer(write), Reader(read)
    termios.tcflow(write, termios.TCOOFF)  # as Ctrl-S does
    log.write(b"first\n")
    log.write(b"second\n")
    assert not reader.has(1)()
    termios.tcflow(write, termios.TCOON)
    assert poll(reader.has(2))
    assert reader.data == b"first\nsecond\n"
    assert log.close(60)
    os.close(read)
    os.close(write)


def test_records_go_to_the_stream_as_they_are_formatted_and_what_was_lost_too(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w", encoding="ascii") as stream:
        handler = LogHandler(stream, 4096)
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        handler.emit(logging.LogRecord("x", logging.INFO, "", 0, "veth %s", ("⇄",), None))
        handler.finish(1)
    assert (tmp_path / "log").read_text() == "INFO veth \\u21c4\n"
    write, read = pipe()
    with os.fdopen(write, "w") as to, os.fdopen(read, "rb", 0) as source:
        _tell_much(to, source)


def _tell_much(to: IO[str], source: IO[bytes]) -> None:
    handler = LogHandler(to, 4096)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    for _ in range(2000):
        handler.emit(logging.LogRecord("x", logging.INFO, "", 0, "y" * 80, (), None))
    read = b""
    while (told := sum(map(int, re.findall(rb"WARNING ([0-9]+) ", read))) + read.count(b"INFO")) < 2000:
        read += source.read(1 << 16)  # as often as the reader falls behind, there is a count
    assert told == 2000
    handler.finish(5)


def test_a_record_that_cannot_be_formatted_is_a_line_and_stderr_is_not_written_to(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write, read = pipe()
    os.set_blocking(read, False)
    with os.fdopen(write, "w") as to:
        handler, reader = LogHandler(to, 4096), Reader(read)
        handler.emit(logging.LogRecord("x", logging.INFO, "here.py", 7, "%d", ("no number",), None))
        handler.emit(logging.LogRecord("x", logging.INFO, "here.py", 8, "next", (), None))
        assert poll(reader.has(2))
        handler.finish(5)
    os.close(read)
    first, second = reader.data.decode().splitlines()
    assert "here.py:7" in first
    assert "TypeError" in first
    assert second == "next"
    assert capsys.readouterr().err == ""


def test_a_fault_that_repeats_itself_is_a_few_lines_a_second() -> None:
    sparse = Sparse(5)
    records = [logging.LogRecord("asyncio", logging.ERROR, "", 0, "again", (), None) for _ in range(100)]
    for number, record in enumerate(records):
        record.created = 1000 + number / 50
    assert sum(map(sparse.filter, records)) == 10


def test_a_thread_whose_start_is_interrupted_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    write, read = pipe()
    one = writer(write)
    before = set(threading.enumerate())  # those of other tests may need a moment to end
    try:
        with monkeypatch.context() as patches:
            patches.setattr(threading.Event, "wait", wait_interrupted)
            with pytest.raises(KeyboardInterrupt):
                for line in lines(MOST // 88):  # more than the pipe takes, so a thread is needed
                    one.write(line)
        one.write(b"last\n")
        assert [each.name for each in set(threading.enumerate()) - before] == ["vethlib-log"]
    finally:
        os.close(read)
        one.close(30)
        os.close(write)
