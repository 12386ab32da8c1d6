"""Writing lines to a descriptor without ever blocking, even if it is a pipe or a terminal that nobody reads.

1. A line is written at once if that cannot block: to a file, and to a pipe or a socket that has room for it
   (RWF_NOWAIT, pwritev2(2)). O_NONBLOCK is not an alternative: it would apply to all users of the open file.
2. Anything else waits in a queue for a thread, which is started when it is needed.
3. The queue is bounded. Lines without room are counted, and the number is reported when there is room again.
4. If no thread can be started, the queue is tried again with the next line.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import signal
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Final

from vethlib._primitives import begin

__all__ = ["LineWriter", "LogHandler", "Sparse"]

_ATOMIC: Final = 4096  # PIPE_BUF, include/uapi/linux/limits.h
# Pythons that were built against an old C library do not have it (glibc before 2.26, musl before 1.2.5).
_NOWAIT: Final[int | None] = getattr(os, "RWF_NOWAIT", None)


class LineWriter:
    """Writes to the descriptor `number`, which it does not own. Up to `most` bytes are queued.

    `lost` returns the line that reports a number of lost lines.
    """

    def __init__(self, number: int, most: int, lost: Callable[[int], bytes]) -> None:
        self._number, self._most, self._lost_line = number, most, lost
        mode = os.fstat(number).st_mode
        self._can_stall = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        self._is_slow = not self._can_stall and os.isatty(number)
        self._waiting: deque[bytes] = deque()
        self._size = 0  # bytes that wait
        self._lost = 0
        self._thread: threading.Thread | None = None
        self._is_writing = False  # the thread is writing, or has not noticed yet that the queue is empty
        self._closed = False
        self._changed = threading.Condition()

    def write(self, line: bytes) -> None:
        """Write a line, now or later, without waiting for a reader."""
        with self._changed:
            if not self._is_writing and not self._is_slow:
                self._drain()
                if not self._waiting and not self._lost:
                    line = line[self._write_some(line) :]
            if line:
                self._put(line)
            if self._waiting and not self._is_writing:
                self._start()
            self._changed.notify_all()

    def close(self, grace: float) -> bool:
        """Wait up to `grace` seconds until the queue is written; return whether it was."""
        deadline = time.monotonic() + grace
        with self._changed:
            while self._is_writing and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            if not self._is_writing:
                self._drain()
            self._closed = True
            self._changed.notify_all()
            return not self._waiting

    def _put(self, line: bytes) -> None:
        if self._lost:
            line = self._lost_line(self._lost) + line  # where it belongs in the order
        if self._size + len(line) > self._most:
            self._lost += 1
            return
        self._lost = 0
        self._waiting.append(line)
        self._size += len(line)

    def _drain(self) -> None:
        """Write what can be written without waiting."""
        while self._waiting:
            written = self._write_some(self._waiting[0])
            self._size -= written
            if written < len(self._waiting[0]):
                self._waiting[0] = self._waiting[0][written:]
                return
            self._waiting.popleft()
        if self._lost:
            line = self._lost_line(self._lost)
            if self._write_some(line) == len(line):
                self._lost = 0

    def _write_some(self, data: bytes) -> int:
        """Write as much as can be written without waiting; what can never be written counts as written."""
        try:
            if not self._can_stall:
                return os.write(self._number, data) if not self._is_slow else 0
            if _NOWAIT is not None:
                try:
                    return os.pwritev(self._number, [data], -1, _NOWAIT)
                except NotImplementedError:  # the C library has the flag, but not the call
                    pass
                except OSError as error:
                    if error.errno not in (errno.EOPNOTSUPP, errno.ESPIPE, errno.EINVAL, errno.ENOSYS):
                        raise
            # Such a Python, or a kernel before 6.4: a pipe that polls as writable has a page free.
            if not _is_writable(self._number, 0):
                return 0
            return os.write(self._number, data[:_ATOMIC])
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)  # the reader is gone, or the disk is full; the next line may succeed

    # --- the thread

    def _start(self) -> None:
        if self._thread is not None:
            self._is_writing = True
            return
        self._thread = threading.Thread(target=self._run, name="vethlib-log", daemon=True)
        try:
            begin(self._thread)
            self._is_writing = True
        except RuntimeError:  # no more threads may be started (pids.max, ulimit -u)
            self._thread = None

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            with self._changed:
                if not self._waiting and self._lost:
                    self._waiting.append(self._lost_line(self._lost))
                    self._size += len(self._waiting[0])
                    self._lost = 0
                self._is_writing = bool(self._waiting)
                self._changed.notify_all()
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                self._is_writing = True
                data = self._waiting[0]
            written = self._write_waiting(data)
            with self._changed:
                self._size -= written
                if written < len(data):
                    self._waiting[0] = data[written:]
                else:
                    self._waiting.popleft()

    def _write_waiting(self, data: bytes) -> int:
        try:
            return os.write(self._number, data)
        except BlockingIOError:  # another process has set O_NONBLOCK
            _is_writable(self._number, 1000)
            return 0
        except OSError:
            return len(data)


class LogHandler(logging.Handler):
    """Writes records to the descriptor of a `stream`; up to `most` bytes are queued. Raises OSError without one."""

    def __init__(self, stream: IO[str], most: int) -> None:
        super().__init__()
        self._encoding = getattr(stream, "encoding", None) or "utf-8"
        self._writer = LineWriter(stream.fileno(), most, self._lost)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, without waiting or raising."""
        try:
            self._writer.write(self._line(record))
        except Exception:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - a name of logging
        """Write a line about a record that cannot be written; the original writes to stderr, which may block."""
        error = sys.exc_info()[1]
        text = f"cannot write a log record from {record.pathname}:{record.lineno}: {error!r}\n"
        with suppress(Exception):
            self._writer.write(text.encode(self._encoding, "backslashreplace"))

    def finish(self, grace: float) -> None:
        """Wait up to `grace` seconds until the queue is written."""
        self._writer.close(grace)

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(self._encoding, "backslashreplace")

    def _lost(self, number: int) -> bytes:
        text = "%d lines of the log were lost, because stderr was not read in time"
        return self._line(logging.LogRecord("vethlib", logging.WARNING, "", 0, text, (number,), None))


def _is_writable(number: int, milliseconds: int) -> bool:
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    return bool(poll.poll(milliseconds))


class Sparse(logging.Filter):
    """Passes up to `most` records per second and drops the rest: for faults that a loop may repeat without end."""

    def __init__(self, most: int = 5) -> None:
        super().__init__()
        self._most, self._second, self._count = most, 0, 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record passes."""
        second = int(record.created)
        if second != self._second:
            self._second, self._count = second, 0
        self._count += 1
        return self._count <= self._most
