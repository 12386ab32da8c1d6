"""Fork vethctl from a process that has imported it, because starting Python takes longer than most commands run.

``python tests/nursery.py`` is the process that forks, the nursery. It has no thread, and is a child of the process that
runs the tests. So is what it forks (CLONE_PARENT, clone(2)), to which subprocess.Popen is as to any other child: it has
the arguments, environment, directory, streams and network namespace that the program would have, and ends as an
interpreter ends. A program that would inherit anything else than the nursery has is started as ever.
"""

from __future__ import annotations

import ctypes
import gc
import io
import json
import os
import pkgutil
import resource
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from importlib import import_module
from pathlib import Path
from typing import Any, Final

__all__ = ["Nursery", "install"]

_NAMESPACES: Final = "cgroup", "ipc", "mnt", "pid", "pid_for_children", "time", "user", "uts"
_OF_THREADS: Final = {
    *("Uid", "Gid", "Groups", "SigBlk", "SigIgn", "NoNewPrivs", "Seccomp"),
    *("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"),
}
_READ_ONCE: Final = "PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "GLIBC_", "SSL_", "OPENSSL_", "TZ", "COVERAGE_"
"""Prefixes of the names of variables that are read only once, or before any of our modules is imported."""
_LIMITS: Final = 16  # RLIM_NLIMITS (include/uapi/asm-generic/resource.h)
_LONGEST: Final = 1 << 20  # bytes of a request


def _inherited(environment: Mapping[str, str]) -> tuple[object, ...]:
    """Return what a program inherits from the thread that starts it, except what a nursery passes on."""
    proc = Path("/proc/thread-self")
    fields = (line.split(":\t") for line in (proc / "status").read_text().splitlines())
    root = os.stat("/")
    return (
        [os.stat(proc / "ns" / kind).st_ino for kind in _NAMESPACES],
        [field for field in fields if field[0] in _OF_THREADS],
        [resource.getrlimit(which) for which in range(_LIMITS)],
        (root.st_dev, root.st_ino, os.nice(0)),
        sorted(variable for variable in environment.items() if variable[0].startswith(_READ_ONCE)),
    )


class Nursery:
    """A process that forks vethctl for this process, until it is closed."""

    def __init__(self) -> None:
        self._inherited = _inherited(os.environ)
        self._lock = threading.Lock()
        self._socket, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            command = [sys.executable, __file__, str(its.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL)

    def close(self) -> None:
        self._socket.close()
        self._process.wait(60)

    def serves(self, environment: Mapping[str, str]) -> bool:
        """Return whether a program that this thread starts would be like one that is forked."""
        return self._process.poll() is None and _inherited(environment) == self._inherited

    def fork(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        directory: str,
        files: Sequence[int],
        *,
        new_session: bool,
    ) -> int:
        """Begin ``python -m vethlib`` with these arguments and standard streams; return its process id."""
        umask = os.umask(0o022)
        os.umask(umask)
        request = json.dumps([arguments, dict(environment), umask, new_session]).encode()
        with ExitStack() as opened, self._lock:
            also = [os.open(directory, os.O_PATH), os.open("/proc/thread-self/ns/net", os.O_RDONLY)]
            for descriptor in also:
                opened.callback(os.close, descriptor)
            socket.send_fds(self._socket, [request], [*files, *also])
            return int(self._socket.recv(64))


def install() -> Nursery:
    """Have a nursery fork ``python -m vethlib …`` wherever subprocess.Popen of this process starts it."""
    nursery, execute = Nursery(), subprocess.Popen._execute_child  # type: ignore[attr-defined]

    def begin(process: Any, args: Any, *how: Any) -> None:
        if not _fork_of(nursery, process, args, *how):
            execute(process, args, *how)

    # Only the method is replaced, because vethlib checks whether the class is the original one.
    subprocess.Popen._execute_child = begin  # type: ignore[attr-defined]
    return nursery


def _fork_of(
    nursery: Nursery,
    process: Any,
    args: Any,
    executable: Any,
    preexec_fn: Any,
    close_fds: Any,
    pass_fds: Any,
    cwd: Any,
    env: Any,
    startupinfo: Any,
    creationflags: Any,
    shell: Any,
    *more: Any,
) -> bool:
    """Have a program forked, if that makes no difference to it; return whether this was done."""
    *pipes, restore_signals, gid, gids, uid, umask, new_session, group = more
    unusual = executable, preexec_fn, pass_fds, shell, gid, gids, uid, umask, group
    if unusual != (None, None, (), False, None, None, None, -1, -1) or not (close_fds and restore_signals):
        return False
    if isinstance(args, (str, bytes, os.PathLike)):
        return False
    words, environment = [os.fsdecode(word) for word in args], os.environ if env is None else env
    if words[:3] != [sys.executable, "-m", "vethlib"] or not nursery.serves(environment):
        return False
    stdin, _, _, stdout, _, stderr = pipes
    files = [ours if theirs == -1 else theirs for ours, theirs in enumerate((stdin, stdout, stderr))]
    try:
        process.pid = nursery.fork(words[3:], environment, cwd or ".", files, new_session=new_session)
    except OSError:
        return False  # no such directory, or a standard stream is closed: starting the program normally reports that
    process._child_created = True
    process._close_pipe_fds(*pipes)
    return True


def _serve(requests: socket.socket) -> None:
    """Fork a program for each request; return in the programs, and end with the requests."""
    command = import_module("vethlib.cli.commands")
    for module in pkgutil.walk_packages(command.__path__, f"{command.__name__}."):
        import_module(module.name)
    gc.collect()
    gc.freeze()  # these objects are not garbage of the programs
    usual = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        request, files, _, _ = socket.recv_fds(requests, _LONGEST, 5)
        if not request:
            sys.exit()
        if pid := _fork():
            for file in files:
                os.close(file)
            requests.send(b"%d" % pid)
        else:
            requests.close()
            _become(json.loads(request), files)
            signal.pthread_sigmask(signal.SIG_SETMASK, usual)
            return


def _fork() -> int:
    """Do what os.fork() does, but make a child of the parent of this process."""
    clone3, clone_parent, set_tid, clear_tid = 435, 0x8000, 0x0100_0000, 0x0020_0000
    libc, python, place = ctypes.PyDLL(None, use_errno=True), ctypes.pythonapi, ctypes.c_uint64()
    libc.prctl(40, ctypes.byref(place))  # PR_GET_TID_ADDRESS: where the C library has the number of the thread
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal (that of this process), stack, its size, tls
    arguments = (ctypes.c_uint64 * 8)(clone_parent | set_tid | clear_tid, 0, place.value, 0, 0, 0, 0, 0)
    python.PyOS_BeforeFork()
    pid: int = libc.syscall(clone3, arguments, ctypes.c_size_t(ctypes.sizeof(arguments)))
    if pid:
        python.PyOS_AfterFork_Parent()
    else:
        python.PyOS_AfterFork_Child()
    if pid < 0:
        raise OSError(ctypes.get_errno(), "clone3")
    return pid


def _become(request: list[Any], files: Sequence[int]) -> None:
    arguments, environment, umask, new_session = request
    *streams, directory, netns = files
    if ctypes.CDLL(None, use_errno=True).setns(netns, 0):
        raise OSError(ctypes.get_errno(), "setns")
    os.fchdir(directory)
    if new_session:
        os.setsid()
    os.umask(umask)
    # Received descriptors have numbers above those of the standard streams, which are open here.
    for stream, file in enumerate(streams):
        os.dup2(file, stream)
    for file in files:
        os.close(file)
    for stream, name in enumerate(("stdin", "stdout", "stderr")):
        former = getattr(sys, name)
        buffer = os.fdopen(stream, "wb" if stream else "rb", closefd=False)
        buffered = stream != 2 and not buffer.isatty()
        opened = io.TextIOWrapper(buffer, former.encoding, former.errors, "\n", line_buffering=not buffered)
        setattr(sys, name, opened)
        setattr(sys, f"__{name}__", opened)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = os.getcwd()
    sys.argv = ["vethlib", *arguments]


if __name__ == "__main__":
    with closing(socket.socket(fileno=int(sys.argv[1]))) as requests:
        _serve(requests)
    runpy.run_module("vethlib", run_name="__main__", alter_sys=True)
