"""Open the file of a namespace, whatever is at its path, without side effects and without a long wait.

1. Only namespaces and files in /proc are opened for reading: opening anything else may have side effects, such as
   releasing the writer of a FIFO, an action of a device, or an automount.
2. So a path is opened by O_PATH first, its device number compared with that of nsfs, and the descriptor then opened for
   reading. In /run/netns, which is root's, a look at the entry is enough: a mount on it, or a symbolic link.
3. If the kernel does not have a path in memory, a separate thread looks it up (:mod:`.answers`), which takes 0.1 ms.
   Usually the reason is that the path does not exist at all; so the file systems of / and /run, without which nothing
   works anyway, are asked directly.
4. /proc/42/ns/net needs none of this: procfs always answers, and the file can only be a namespace.
5. A symbolic link of another user leads only to namespaces of that user. It could lead to the home namespace, or to
   that of any tenant, and this process would configure these. (Users have no other way: mounting a namespace takes
   root.)
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Final, TypeVar

from vethlib.ns.files.glance import Glance, glance_at, glance_of, is_nsfs, nsfs, open_cached

from .descriptor import Descriptor
from .descriptor import opened as opened_file
from .syscalls import ns_owner

if TYPE_CHECKING:
    from vethlib.ns.files.walk import Walked

__all__ = [
    "NETNS_DIR",
    "NoNamespace",
    "asked",
    "entry_at",
    "has_procfs",
    "hidden_process",
    "identity_at",
    "is_directory",
    "is_leftover",
    "is_namespace_of_process",
    "link_at",
    "opened",
    "opened_directory",
    "process_at",
    "set_patience",
    "shown_identity",
    "unhurried",
]

NETNS_DIR: Final = "/run/netns"

_NAMED: Final = NETNS_DIR + "/"
_NAMED_LENGTH: Final = len(_NAMED)
_VAR_RUN: Final = "/var/run"
_OURS: Final = frozenset({"/", "/proc", "/run", NETNS_DIR})  # only root controls what these are

_PID_MAX: Final = 0x7FFF_FFFF

T = TypeVar("T")


class NoNamespace(Exception):
    """The path exists, but leads to no namespace, or to one to which it must not; then the text is the reason."""


def opened(path: str) -> Descriptor:
    """Open the namespace at `path` for reading; the caller still has to check its kind.

    Raises NoNamespace, NoAnswer, and OSError like ``os.open``.
    """
    if path.startswith(f"{_VAR_RUN}/") and _is_var_run_usual():
        path = path.removeprefix("/var")
    if _is_named(path):
        if is_nsfs(path):
            return opened_file(path)
        if not stat.S_ISLNK(glance_at(path).mode):
            raise NoNamespace
        if is_namespace_of_process(target := os.readlink(path)):
            path = target
    if is_namespace_of_process(path):
        return opened_file(path)
    fds: list[int] = []
    try:
        open_cached(path, fds, links=False)
        return _opened_for_reading(fds[0])
    except BlockingIOError:
        pass
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    finally:
        _close(fds)
    return _walked(path, _reached)


def _is_var_run_usual() -> bool:
    """Return whether /var/run is a link to /run, as on nearly every system; only root can change it.

    The network plugins of containers (CNI) and Docker name namespaces there, and walking such a path name by name would
    take 20 times as long as opening it (files/walk.py).
    """
    known, var = _indispensable(), glance_at("/var")
    if not stat.S_ISDIR(var.mode) or var.dev not in known or not stat.S_ISLNK(glance_at(_VAR_RUN).mode):
        return False
    return os.readlink(_VAR_RUN) in ("/run", "../run")


def process_at(path: str) -> int:
    """Return the process to whose namespace in /proc a path leads, however it is spelled; 0 if there is none."""
    try:
        return _walked(path, lambda walked: walked.process)
    except OSError:
        return 0


def _walked(path: str, then: Callable[[Walked], T]) -> T:
    from vethlib.ns.files.walk import at_hand, walk  # most references have no links

    try:
        return then(walk(path, at_hand(_indispensable())))
    except BlockingIOError:
        return _answered(path, lambda: then(walk(path)))


def _reached(walked: Walked) -> Descriptor:
    """Open the namespace at the end of a path, unless other users' links lead there and it is not theirs."""
    namespace = _opened_for_reading(walked.end.fileno())
    # In a user namespace, root outside may have no number here; but the owner of "/" needs no link.
    strangers = walked.strangers and walked.strangers - {os.stat("/").st_uid}
    if strangers:
        owner = ns_owner(namespace.fileno())
        for user in sorted(strangers - {owner}):
            whose = "another user" if owner is None else f"user {owner}"
            raise NoNamespace(f"is reached through a symbolic link of user {user}, but belongs to {whose}")
    return namespace


def is_namespace_of_process(path: str) -> bool:
    """Return whether a path is /proc/42/ns/net, or that of a thread or of this process."""
    match path.split("/"):
        case ["", "proc", process, "ns", "net"]:
            return _is_number(process) or process in ("self", "thread-self")
        case ["", "proc", process, "task", thread, "ns", "net"]:
            return (_is_number(process) or process == "self") and _is_number(thread)
    return False


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _answered(path: str, ask: Callable[[], T], device: int | None = None) -> T:
    from vethlib.ns.files.answers import answered  # rarely needed

    return answered(path, ask, device)


def set_patience(seconds: float) -> None:
    """Set how long this process waits for the file system of a reference to answer; 1 s by default.

    Raises InvalidValue if it is not a positive number.
    """
    from vethlib.ns.files.answers import set_patience

    set_patience(seconds)


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _is_named(path: str) -> bool:
    return path.startswith(_NAMED) and path.find("/", _NAMED_LENGTH) < 0


def _opened_for_reading(fd: int) -> Descriptor:
    if glance_of(fd).dev != nsfs():
        raise NoNamespace
    return opened_file(f"/proc/thread-self/fd/{fd}")


def opened_directory(path: str) -> Descriptor:
    """Open a directory for reading. Raises NoAnswer, and OSError like ``os.open``."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return asked(path, lambda: opened_file(path, flags))
    except BlockingIOError:  # no thread can be started
        return opened_file(path, flags)


def asked(path: str, work: Callable[[], T], *, answering: Container[int] = ()) -> T:
    """Call `work`, which looks at `path`: directly if nothing can block it, otherwise in another thread.

    `answering` are the devices of further file systems that the caller asks directly. Raises NoAnswer, BlockingIOError
    if no thread can be started, and what `work` raises.
    """
    return work() if _is_at_hand(path, answering) else _answered(path, work)


def _is_at_hand(path: str, answering: Container[int], *, again: bool = True) -> bool:
    """Return whether the kernel has the whole path in memory, and it ends on a file system that always answers."""
    fds: list[int] = []
    try:
        open_cached(path, fds)
        device = glance_of(fds[0]).dev
        return device in answering or device in _indispensable()
    except BlockingIOError:
        # The kernel may have a link in memory, but have to set its access time (relatime: at first use, and daily).
        return again and _is_link_followed(path, answering) and _is_at_hand(path, answering, again=False)
    except OSError:
        return False
    finally:
        _close(fds)


def _is_link_followed(path: str, answering: Container[int]) -> bool:
    """Return whether there is a link at `path`; its access time is set, unless that would need a question."""
    try:
        return _link_at(path, answering) != ""
    except FileNotFoundError:
        return False


def identity_at(path: str) -> tuple[int, int] | None:
    """Return ``(st_dev, st_ino)`` of the namespace at `path`; None if there is none, or it cannot be determined."""
    try:
        if _is_named(path) and (glance := glance_at(path)).dev == nsfs():
            return glance.dev, glance.ino
        with opened(path) as owner:
            status = os.fstat(owner.fileno())
            return status.st_dev, status.st_ino
    except (NoNamespace, OSError):
        return None


def shown_identity(path: str) -> tuple[int, int] | None:
    """Return ``(st_dev, st_ino)`` of a path in /proc; None if the process has ended, or this user may not see it."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def hidden_process(path: str) -> int:
    """Return the process to which a path in /proc belongs if it exists, but is not in /proc; 0 otherwise.

    With the mount option hidepid=2 (or hidepid=ptraceable), /proc/42 does not exist for a user who may not trace
    process 42 (proc_pid_permission, fs/proc/base.c). Signal 0 has no effect, and fails with ESRCH if the process has
    ended. Nothing is hidden if there is no procfs, or if it shows another pid namespace, in which 42 is another
    process.
    """
    match path.split("/"):
        case ["", "proc", text, *_] if _is_number(text) and len(text) <= 10:
            number = int(text)
        case _:
            return 0
    if not 0 < number <= _PID_MAX or os.path.lexists(f"/proc/{number}") or not _is_proc_ours():
        return 0
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return 0
    except OSError:
        pass  # EPERM: it belongs to another user
    return number


def has_procfs() -> bool:
    """Return whether a procfs is mounted at /proc. Without it, no namespace can be opened, and none is known to end."""
    return os.path.lexists("/proc/self")


def _is_proc_ours() -> bool:
    """Return whether /proc is a procfs of this process's pid namespace."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def is_leftover(entry: Glance) -> bool:
    """Return whether a file may be an unused mount point of a named namespace: a regular file of mode 0."""
    return entry.mode == stat.S_IFREG


def entry_at(path: str) -> Glance:
    """Look at `path` itself. Raises NoAnswer, and OSError like lstat."""
    # /proc/thread-self depends on the calling thread.
    if path in _OURS or _is_named(path) or path.rpartition("/")[0] == "/proc":
        return _look(path)
    fds: list[int] = []
    try:
        open_cached(path, fds, follow=False)
        glance = glance_of(fds[0])
        if not stat.S_ISLNK(glance.mode):
            return glance
        if glance.dev in _indispensable():
            return glance._replace(link=os.readlink("", dir_fd=fds[0]))
    except BlockingIOError:
        _link_at(path)
    finally:
        _close(fds)
    return _answered(path, lambda: _look(path))


def is_directory(path: str) -> bool:
    """Return whether there is a directory at `path`, not following a symbolic link; False if that is unknown."""
    try:
        return stat.S_ISDIR(glance_at(path).mode)
    except OSError:
        return False


def link_at(path: str) -> str:
    """Return the target of the symbolic link at `path`; "" if there is none, or it cannot be determined."""
    try:
        return entry_at(path).link
    except OSError:
        return ""


def _indispensable() -> set[int]:
    """Return the devices of the file systems that are asked directly. Not cached, since device numbers are reused."""
    devices = {glance_at("/").dev}
    try:
        devices.add(glance_at("/run").dev)
    except FileNotFoundError:
        pass  # the root file system of a small container
    return devices


def _link_at(path: str, answering: Container[int] = ()) -> str:
    """Return the target of the link at `path`; "" if that would need a question. Raises FileNotFoundError.

    `answering` are the devices of further file systems that the caller asks directly.
    """
    above, known = path, _indispensable()

    def is_asked(device: int) -> bool:
        return device in known or device in answering

    while above:
        above, _, name = above.rpartition("/")
        fds: list[int] = []
        try:
            open_cached(above or "/", fds)
            if name in ("", ".", "..") or not is_asked(glance_of(fds[0]).dev):
                return ""
            glance = glance_at(name, fds[0])
            is_link = is_asked(glance.dev) and stat.S_ISLNK(glance.mode) and len(above) + 1 + len(name) == len(path)
            return os.readlink(name, dir_fd=fds[0]) if is_link else ""
        except BlockingIOError:
            continue
        except FileNotFoundError:
            raise
        except OSError:
            return ""
        finally:
            _close(fds)
    return ""


def _look(path: str) -> Glance:
    glance = glance_at(path)
    return glance._replace(link=os.readlink(path)) if stat.S_ISLNK(glance.mode) else glance


def unhurried(path: str, work: Callable[[str], T]) -> T:
    """Call `work` with a path to the directory at `path`, whose file system it asks, in another thread if need be.

    Raises NoAnswer, and any error of `work`.
    """
    fds: list[int] = []
    try:
        if path not in _OURS:
            open_cached(path, fds)
    except OSError:
        return _answered(path, lambda: work(path))
    if not fds:
        return work(path)
    (owner,) = map(Descriptor.fromfd, fds)
    device = glance_of(owner.fileno()).dev
    if device in _indispensable():
        return work(path)
    # Through the descriptor, no file system on the path is asked. The thread closes it, perhaps long after this call.
    return _answered(path, lambda: work(f"/proc/thread-self/fd/{owner.fileno()}"), device)
