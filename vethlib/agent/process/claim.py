"""A name on a host that only one process can hold: that of an agent, or of a trial. It ends with its process.

1. The authority is a lock (flock) on a file below /run/vethlib that no other user can open, so nobody else can hold it.
   Its name contains the identity of the network namespace: two hosts on one machine, each in its own network
   namespace, can each have an agent of the same label.
2. Next to it is a socket, through which everybody can find out the holder: the kernel reports its owner (SO_PEERCRED).
3. An abstract socket (unix(7)) does the same for processes that see another /run, in a mount namespace of their own.
   Any user may bind one, so it decides nothing alone: if its owner is neither root, nor this user, nor the owner of
   /run/vethlib, it is a squatter's. The squatter is named, and otherwise ignored.
4. Nothing here waits: a full queue is an answer, too.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from vethlib._locks import locked, remove
from vethlib._primitives import select
from vethlib.agent.config.mark import check_label
from vethlib.errors import VethError, errno_text

from .descriptors import EXHAUSTED, Reserve
from .rundir import RUN, UnsafeDirectory, base_directories, open_base
from .squatter import find_process

__all__ = ["Claim", "Held", "Holder", "NoUnixSockets", "call", "holder_of", "labels_held", "open_socket"]

_UCRED: Final = struct.Struct("3i")  # struct ucred, include/linux/socket.h: pid, uid, gid
_OVERFLOW: Final = 65534  # the id of every user that a user namespace does not map (kernel.overflowuid)
_ONCE: Final = 64  # callers accepted in one go


class Holder(NamedTuple):
    """The holder of a name: `pid` is 0 if the process is unknown; `uid` is -1 if the user is unknown.

    `is_ours` is whether it can be trusted: a squatter has only the abstract name.
    """

    pid: int
    uid: int
    is_ours: bool

    def __str__(self) -> str:
        process = f"process {self.pid}" if self.pid else "an unknown process"
        return process + (f" of user {self.uid}" if self.uid >= 0 else "")


class Held(VethError):
    """The name is already held, by ``holder``."""

    def __init__(self, message: str, holder: Holder) -> None:
        super().__init__(message)
        self.holder = holder


class NoUnixSockets(VethError):
    """This process may not create UNIX sockets, or not with a name: it cannot hold the name, or ask for its holder."""

    def __init__(self, number: int) -> None:
        cure = "permit UNIX sockets to this process (RestrictAddressFamilies= of systemd, seccomp, LSM)"
        super().__init__(f"creating a UNIX socket failed: {errno_text(number)}; {cure}")
        self.errno = number

    def __reduce__(self) -> tuple[type[NoUnixSockets], tuple[int]]:
        return type(self), (self.errno,)


def open_socket(kind: int) -> socket.socket:
    """Open a non-blocking UNIX socket. Raises NoUnixSockets, and OSError if descriptors or memory run out."""
    try:
        return socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        raise NoUnixSockets(error.errno or 0) from None


class Claim:
    """A name, held until :meth:`close` or the end of the process; others connect to it by sockets of `kind`.

    `squatter` describes the process that holds the abstract name instead, and `unlocked` is the reason if there is no
    lock; "" if all is well. Raises Held, NoUnixSockets, and OSError if descriptors run out.
    """

    def __init__(self, role: str, label: str, kind: int, *, mode: int = 0o666) -> None:
        self.squatter = self.unlocked = ""
        self._maker = os.getpid()
        self._reserve = Reserve()
        self._listening: list[socket.socket] = []
        self._lock = self._directory = -1
        self._name = _name(role, label)
        self._poll = select.epoll()
        try:
            self._listen_abstract(role, label, kind)
            self._claim(role, label, kind, mode)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Return a descriptor that is readable when somebody connects."""
        return self._poll.fileno()

    def accept(self) -> Iterator[socket.socket]:
        """Yield the waiting connections, up to 64 per socket. Without a free descriptor, they are closed instead.

        Raises OSError if not even that is possible.
        """
        for listening in self._listening:
            for _ in range(_ONCE):
                calling = self._reserve.accept(listening)
                if calling is None:
                    break
                yield calling

    def close(self) -> None:
        """Release the name; a forked child only closes its copies of the descriptors."""
        for listening in self._listening:
            listening.close()
        self._listening = []
        if self._lock >= 0 and self._maker == os.getpid():
            # Before the lock is released, so that the files of a later holder are not removed.
            for name in (self._name, _lock_of(self._name)):
                with suppress(OSError):
                    os.unlink(name, dir_fd=self._directory)
        for descriptor in (self._lock, self._directory):
            if descriptor >= 0:
                os.close(descriptor)
        self._lock = self._directory = -1
        self._poll.close()
        self._reserve.close()

    def _listen_abstract(self, role: str, label: str, kind: int) -> None:
        """Bind the abstract name, unless a squatter has it. Raises Held if a trusted process has it."""
        address = _abstract(role, label)
        try:
            self._listen(kind, address)
        except OSError as error:
            if error.errno in EXHAUSTED:
                raise
            if error.errno != errno.EADDRINUSE:  # an LSM forbids the name
                raise NoUnixSockets(error.errno or 0) from None
            holder = holder_of(role, label, kind)
            if holder is None:  # the holder does not listen
                holder = Holder(*(find_process(address, kind) or (0, -1)), is_ours=False)
            if holder.is_ours:
                raise Held(f"{address[1:]} is held by {holder}", holder) from None
            self.squatter = (
                f"the abstract socket {address[1:]} is held by {holder}, which is not an agent and is ignored"
            )

    def _claim(self, role: str, label: str, kind: int, mode: int) -> None:
        """Take the lock and open the socket next to it; do without both if no directory can be trusted."""
        try:
            self._directory = open_base()
            self._lock = locked(_lock_of(self._name), self._directory)
            remove(self._name, self._directory)  # left by a killed process
            self._listen(kind, f"/proc/self/fd/{self._directory}/{self._name}")
            os.chmod(self._name, mode, dir_fd=self._directory)
        except BlockingIOError:
            holder = holder_of(role, label, kind)
            raise Held(
                f"{self._name} is locked", holder if holder and holder.is_ours else Holder(0, -1, True)
            ) from None
        except (UnsafeDirectory, OSError) as error:
            why = str(error) if isinstance(error, VethError) else errno_text(error.errno or 0)
            self.unlocked = f"only its abstract socket prevents a second instance: {why}"

    def _listen(self, kind: int, address: str) -> None:
        made = open_socket(kind)
        try:
            made.bind(address)
            made.listen()
            self._poll.register(made, select.EPOLLIN)
        except BaseException:
            made.close()
            raise
        self._listening.append(made)


def holder_of(role: str, label: str, kind: int) -> Holder | None:
    """Return the holder of a name, or None. A squatter is returned only if no trusted process holds the name.

    Raises NoUnixSockets.
    """
    calling, holder = call(role, label, kind)
    if calling is not None:
        calling.close()
    if holder is not None and not holder.is_ours and holder.uid < 0:
        holder = Holder(*(find_process(_abstract(role, label), kind) or holder[:2]), is_ours=False)
    return holder


def call(role: str, label: str, kind: int) -> tuple[socket.socket | None, Holder | None]:
    """Connect to the holder of a name. Never waits.

    Returns a non-blocking socket if the holder is trusted and accepts connections, and the holder, None if there is
    none. Raises NoUnixSockets.
    """
    name, abstract = _name(role, label), _abstract(role, label)
    with _addresses(name) as paths:
        for path in paths:
            calling, holder = _connect(path, kind)
            if holder is not None:
                return calling, holder._replace(is_ours=True)  # only a trusted process can create a socket there
    calling, holder = _connect(abstract, kind)
    if holder is None or (calling is not None and holder.uid in _ours()):
        return calling, holder and holder._replace(is_ours=True)
    if calling is not None:
        calling.close()
    return None, holder  # a full queue proves nothing: anybody can fill it


def labels_held(role: str) -> list[str]:
    """Return the labels that may be held in this network namespace, sorted, by the files of their locks."""
    end = _name(role, "")
    labels: set[str] = set()
    for base in base_directories():
        with suppress(OSError):
            labels |= {file.removesuffix(end) for file in os.listdir(base) if file.endswith(end)}
    return sorted(labels)


def _connect(address: str, kind: int) -> tuple[socket.socket | None, Holder | None]:
    """Connect to an address; whether the holder can be trusted is left to the caller."""
    calling = open_socket(kind)
    try:
        calling.connect(address)
        pid, uid, _ = _UCRED.unpack(calling.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    except OSError as error:
        calling.close()
        return None, Holder(0, -1, False) if isinstance(error, BlockingIOError) else None
    return calling, Holder(pid, uid, False)


@contextmanager
def _addresses(name: str) -> Iterator[list[str]]:
    """Yield the paths of a name in the directories that can be trusted."""
    opened: list[int] = []
    try:
        for base in base_directories():
            with suppress(OSError):
                directory = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                opened.append(directory)
                if not _is_safe(base, os.fstat(directory)):
                    os.close(opened.pop())
        # Through the descriptor, the directory is the one that was checked, and the path fits into 107 bytes (unix(7)).
        yield [f"/proc/self/fd/{directory}/{name}" for directory in opened]
    finally:
        for directory in opened:
            os.close(directory)


def _is_safe(path: str, status: os.stat_result) -> bool:
    # /run belongs to root, so the owner of /run/vethlib was given it by root.
    return not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and (path == RUN or status.st_uid == os.geteuid())


def _ours() -> set[int]:
    """Return the users whose agents can be trusted: root, this one, and the owner of /run/vethlib."""
    users = {0, os.geteuid()}
    with suppress(OSError):
        run = os.lstat(RUN)
        if stat.S_ISDIR(run.st_mode) and _is_safe(RUN, run) and run.st_uid != _OVERFLOW:
            users.add(run.st_uid)
    return users


def _name(role: str, label: str) -> str:
    # '@' is in no label.
    netns = os.stat("/proc/thread-self/ns/net").st_ino
    return f"{check_label(label) if label else ''}@{netns}.{role}"


def _lock_of(name: str) -> str:
    return f"{name}.lock"


def _abstract(role: str, label: str) -> str:
    return f"\0vethlib/{role}/{check_label(label)}"
