"""End the programs of nodes when the process that started them has ended.

This is a script that needs only the standard library. Whatever ends that process (SIGKILL, os._exit, a crash), its
programs are ended as by :meth:`Node.close`: with SIGTERM, and two seconds later with SIGKILL. The process reports what
to end through a pipe, one line each:

    +netns INODE COOKIE   end every process in this network namespace
    +pid PID              end this process with its process group
    -netns INODE, -pid PID

The design:

- It is a separate process, because nothing runs in a dead process. It is not a child, so that waiting for all children
  does not wait for it, and it leads a session, so that it receives no signals for the process group.
- It polls a pidfd of the process. The end of the pipe would not do: a forked child keeps the pipe open, and may live
  longer.
- prctl(PR_SET_PDEATHSIG) in the programs would not do, either: it reports the death of the *thread* that started them.
- It kills by namespace as well as by group: a daemon that goes to the background leaves its group.

The kernel reuses the inode number of an ended namespace at once. So a namespace counts as the reported one only if its
cookie is the same, and it is kept open from then on: SO_NETNS_COOKIE, or, before Linux 5.14, the tag that the reporting
process has set in it. Without either, it counts if one of its processes was started before the reporting process was
seen to have ended. Processes that are older than the dead process are left alone, because it cannot have started them.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Collection

BEGUN = b"begun\n"
"""The output of the script when it begins to supervise; its input is /dev/null."""

_GRACE = 2.0  # seconds between SIGTERM and SIGKILL
_POLL = 0.02
_SPARE = 64  # descriptors to look at /proc with, and to keep namespaces open
_PATIENCE = 5.0  # seconds for killed processes to end
_CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
_SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h; other machines (sparc) refuse it
_TAG = "/proc/sys/net/ipv4/conf/lo/tag"  # meant for the administrator; the kernel ignores it (ip-sysctl.rst)
_OF_GROUP = 1 << 2  # PIDFD_SIGNAL_PROCESS_GROUP, include/uapi/linux/pidfd.h: since Linux 6.9


class Supervised:
    """What is to be ended: network namespaces by inode, and programs by id, each with a pidfd."""

    def __init__(self, since: int = 0) -> None:
        self._since = since  # start time of the process that reports
        self._namespaces: dict[int, int] = {}
        self._programs: dict[int, int] = {}

    def __bool__(self) -> bool:
        """Whether there is anything to end."""
        return bool(self._namespaces or self._programs)

    def take(self, line: str) -> None:
        """Process a line of the pipe."""
        word, *texts = line.split(" ")
        if not texts or not all(text.isdecimal() for text in texts):
            return
        number, cookie = int(texts[0]), int(texts[-1])
        if word == "+netns":
            self._namespaces[number] = cookie if len(texts) > 1 else 0
        elif word == "-netns":
            self._namespaces.pop(number, None)
        elif word == "-pid" and number in self._programs:
            os.close(self._programs.pop(number))
        elif word == "+pid" and number not in self._programs:
            try:
                self._programs[number] = _pidfd_open(number)
            except OSError:
                pass  # it has ended, or there is no descriptor for it: it ends with its namespace

    def end(self, seen: float = float("inf")) -> None:
        """End everything. `seen` is when the end of the reporting process was seen, in ticks since the boot."""
        import signal  # as slow as the rest of the start, and usually not needed

        held = self._hold(seen)
        self._signal(held, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE
        while self._signal(held, 0) and time.monotonic() < deadline:
            time.sleep(_POLL)
        deadline = time.monotonic() + _PATIENCE
        while self._signal(held, signal.SIGKILL) and time.monotonic() < deadline:
            time.sleep(_POLL)

    def _hold(self, seen: float) -> set[int]:
        """Keep the namespaces open that have processes inside, and return their inodes."""
        held = set()
        for pid in self._processes(self._namespaces):
            try:
                fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
            except OSError:
                continue
            inode = os.fstat(fd).st_ino
            cookie = self._namespaces.get(inode)
            if cookie is not None and inode not in held and (_cookie(fd) == cookie if cookie else _start(pid) <= seen):
                held.add(inode)  # and `fd` stays open
            else:
                os.close(fd)
        return held

    def _processes(self, namespaces: Collection[int]) -> list[int]:
        """Return the ids of the processes in these namespaces that are not older than the reporting process."""
        if not namespaces:
            return []
        pids = (int(name) for name in os.listdir("/proc") if name.isdecimal())
        return [pid for pid in pids if _netns(pid) in namespaces and _start(pid) >= self._since]

    def _signal(self, namespaces: set[int], number: int) -> bool:
        """Send a signal to each process; return whether there was any."""
        sent = [_send(pidfd, number, whole_group=True) for pidfd in self._programs.values()]
        for pid in self._processes(namespaces):
            try:
                pidfd = _pidfd_open(pid)  # from here on, the number cannot be reused
            except OSError:
                continue
            if _netns(pid) in namespaces:
                sent.append(_send(pidfd, number))
            os.close(pidfd)
        return any(sent)


def _netns(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return 0  # it has ended, or this user may not inspect it


def _start(pid: int) -> int:
    """Return the start time of a process, in ticks since the boot (proc_pid_stat(5)); -1 if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return -1


def _now() -> float:
    """Return the start time of a process that is started now."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")


def cookie_of(inside: socket.socket) -> int:
    """Return the cookie of a socket's network namespace, unique since the boot. Raises OSError before Linux 5.14."""
    from _socket import SOL_SOCKET

    return int.from_bytes(inside.getsockopt(SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder)


def tag() -> int:
    """Return the tag of the network namespace of the calling thread; set it if there is none. Raises OSError."""
    number = _read_tag()
    if not number:
        number = int.from_bytes(os.urandom(4), "little") >> 1 | 1
        with open(_TAG, "w", encoding="utf-8") as file:
            file.write(str(number))
    return number


def _read_tag() -> int:
    with open(_TAG, encoding="utf-8") as file:
        return int(file.read())


def _cookie(netns: int) -> int:
    """Return the cookie of an open namespace, or its tag; 0 if it is unknown."""
    import ctypes
    import socket

    setns = ctypes.CDLL(None).setns
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        if setns(netns, _CLONE_NEWNET):
            return 0
        try:
            with socket.socket(socket.AF_UNIX) as inside:
                return cookie_of(inside)
        except OSError:
            return _read_tag()
        finally:
            setns(home, _CLONE_NEWNET)
    except OSError:
        return 0
    finally:
        os.close(home)


def _send(pidfd: int, number: int, *, whole_group: bool = False) -> bool:
    """Send a signal to a process, or to the group that it leads; return False if it has ended."""
    try:
        _pidfd_send_signal(pidfd, number, _OF_GROUP if whole_group else 0)
    except ProcessLookupError:
        return whole_group and _send(pidfd, number)  # it leads no group, or has ended
    except PermissionError:
        return False  # it belongs to another user now
    except OSError:  # EINVAL: an older kernel
        return _send_to_group(pidfd, number)
    return True


def _send_to_group(pidfd: int, number: int) -> bool:
    pid = _pid(pidfd)
    try:
        # As long as the leader exists, the number of its group cannot be reused.
        if pid > 0 and os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            _pidfd_send_signal(pidfd, number)
    except OSError:
        return False
    return True


def _pid(pidfd: int) -> int:
    """Return the id of the process of a pidfd; -1 if it has ended."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="utf-8") as lines:
        return next((int(line.split()[1]) for line in lines if line.startswith("Pid:")), -1)


def _spare(descriptor: int) -> list[int]:
    """Raise the limit of descriptors, because each program takes one; return some that are reserved for the end."""
    try:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (OSError, ValueError):  # a sandbox (seccomp) refuses prlimit64(2)
        most = 1024
    return [os.dup(descriptor) for _ in range(min(_SPARE, most // 4))]


def _pidfd_open(pid: int) -> int:
    return os.pidfd_open(pid) if hasattr(os, "pidfd_open") else _syscall(434, pid, 0)


def _pidfd_send_signal(pidfd: int, number: int, flags: int = 0) -> None:
    import signal

    if hasattr(signal, "pidfd_send_signal"):
        signal.pidfd_send_signal(pidfd, number, None, flags)
    else:
        _syscall(424, pidfd, number, 0, flags)


def _syscall(number: int, *arguments: int) -> int:
    """Make a system call for which this Python has no function, as _primitives.py does. Raises OSError."""
    import ctypes

    if os.uname().machine.startswith(("alpha", "mips")):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    result = ctypes.CDLL(None, use_errno=True).syscall(*map(ctypes.c_long, (number, *arguments)))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(result)


def _report_begun() -> None:
    """Report readiness, and close the output, because the owner reads it to its end."""
    os.write(1, BEGUN)
    for output in (1, 2):
        os.dup2(0, output)


def supervise(owner: int, pipe: int) -> None:
    """Read lines from `pipe` until the process of the pidfd `owner` has ended; then end what it has reported."""
    spare = _spare(owner)
    supervised = Supervised(max(0, _start(_pid(owner))))
    _report_begun()
    ready = select.poll()
    ready.register(owner, select.POLLIN)
    ready.register(pipe, select.POLLIN)
    rest = ""
    while True:
        events = dict(ready.poll())
        if pipe in events:  # first, because lines before the end count
            if data := os.read(pipe, 1 << 16):
                *lines, rest = (rest + data.decode()).split("\n")
                for line in lines:
                    supervised.take(line)
                continue
            if not supervised:
                return  # the owner could not use this supervisor, or has nothing left to end
            ready.unregister(pipe)  # execve(2): the process still exists, with another program
        if owner in events:
            for descriptor in spare:
                os.close(descriptor)
            supervised.end(_now())
            return


if __name__ == "__main__":
    supervise(*map(int, sys.argv[1:3]))
