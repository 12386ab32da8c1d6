"""Import pytest once and fork it for each run, because starting it takes longer than most runs.

``python tests/live/warm.py`` is the process that forks. It has imported pytest, vethlib and what other plugins need,
but none of these, whose assertions pytest wants to rewrite when it imports them; and it has no thread. A forked run has
the environment, the directory and the network namespace of the caller, the capabilities of the caller or those that
UNPRIVILEGED leaves it, and ends as an interpreter ends.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, TextIO

__all__ = ["UNPRIVILEGED", "Run", "WarmPytest"]

UNPRIVILEGED = ["setpriv", "--bounding-set=-all,+setfcap", "--inh-caps=-all"]
"""Words before a command: without capabilities, it can do what an ordinary user can, no matter who runs these tests.

One capability stays: user 0 needs CAP_SETFCAP to be mapped into a user namespace (verify_root_map,
kernel/user_namespace.c); other users do not.
"""


_OF_VETHLIB = (
    *("_nl.dependents.route", "session.core.settings", "session.read.dying", "session.write.creating.create"),
    *("session.write.delete", "session.write.masters", "topology.design.routing", "topology.keep"),
    *("topology.live.build", "topology.live.capture", "topology.live.pinging"),
    *(f"pytest_netns.{name}" for name in ("fixtures", "leaks.watch", "report", "session", "statuses")),
)
_OF_PYTHON = "concurrent.futures", "email.parser", "faulthandler", "pdb", "readline"
ALSO = *_OF_PYTHON, "_pytest._argcomplete", "execnet.multi", *(f"vethlib.{name}" for name in _OF_VETHLIB)
"""Modules that most runs import, which takes half of the time of one."""


class Run:
    """A run that has begun; to Pytester.run() it is a subprocess.Popen."""

    stdin = None

    def __init__(self, server: subprocess.Popen[bytes]) -> None:
        self._server = server
        self._pid = int(_line(server))

    def kill(self) -> None:
        os.kill(self._pid, 9)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status as Popen.wait() does, or raise its TimeoutExpired."""
        assert self._server.stdout is not None
        if not select.select([self._server.stdout], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("pytest", timeout or 0)
        return os.waitstatus_to_exitcode(int(_line(self._server)))


class WarmPytest:
    """The process that forks, as long as the block lasts."""

    def __enter__(self) -> WarmPytest:
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(60)
        assert self._server.stdout is not None
        self._server.stdout.close()

    def instead_of(self, popen: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function in the place of Pytester.popen()."""

        def begin(command: Sequence[str], **files: Any) -> Any:
            ordinary = list(command[: len(UNPRIVILEGED)]) == UNPRIVILEGED
            python, *arguments = command[len(UNPRIVILEGED) if ordinary else 0 :]
            if python == sys.executable and "PYTHONPATH" not in os.environ:  # which may lead to another pytest
                if arguments[0] == "-mpytest":
                    return self._begin(arguments[1:], ordinary, **files)
                if arguments[:2] == ["-m", "pytest"]:
                    return self._begin(arguments[2:], ordinary, **files)
            return popen(command, **files)

        return begin

    def _begin(self, arguments: Sequence[str], ordinary: bool, stdin: object, stdout: TextIO, stderr: TextIO) -> Run:
        reader, writer = os.pipe()
        os.write(writer, stdin if isinstance(stdin, bytes) else b"")
        os.close(writer)
        request = {
            "arguments": arguments,
            "ordinary": ordinary,
            "environment": os.environ | {"PYTHONPATH": os.getcwd()},  # as Pytester.popen() has it
            "directory": os.getcwd(),
            "process": os.getpid(),
            "thread": threading.get_native_id(),
            "files": [(reader, os.O_RDONLY), (stdout.fileno(), os.O_WRONLY), (stderr.fileno(), os.O_WRONLY)],
        }
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request).encode() + b"\n")
        run = Run(self._server)
        os.close(reader)
        return run


def _line(server: subprocess.Popen[bytes]) -> bytes:
    assert server.stdout is not None
    return server.stdout.readline()


def serve() -> None:
    """Fork a run for each request, one after the other; returns in the runs, and ends with the requests."""
    del sys.path[0]  # the directory of this file
    from _pytest.config import default_plugins

    for name in default_plugins:
        importlib.import_module(f"_pytest.{name}")
    for name in ALSO:
        importlib.import_module(name)
    # A run collects its garbage several times at its end, and none of this is garbage.
    gc.collect()
    gc.freeze()
    requests, answers = os.fdopen(os.dup(0), "rb"), os.dup(1)
    for line in requests:
        request = json.loads(line)
        process, thread = request["process"], request["thread"]
        opened = [os.open(f"/proc/{process}/fd/{file}", flags) for file, flags in request["files"]]
        netns = os.open(f"/proc/{process}/task/{thread}/ns/net", os.O_RDONLY)
        pid = os.fork()
        if not pid:
            os.close(answers)
            requests.close()
            _become(request, opened, netns)
            return
        for descriptor in (*opened, netns):
            os.close(descriptor)
        os.write(answers, b"%d\n" % pid)
        os.write(answers, b"%d\n" % os.waitpid(pid, 0)[1])
    sys.exit()


def _become(request: dict[str, Any], opened: list[int], netns: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(netns, 0):
        raise OSError(ctypes.get_errno(), "setns")
    os.close(netns)
    if request["ordinary"]:
        _become_ordinary(libc)
    for number, descriptor in enumerate(opened):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    sys.path[:0] = [request["directory"]] * 2  # of -m, and of PYTHONPATH
    sys.argv = ["pytest", *request["arguments"]]


def _become_ordinary(libc: ctypes.CDLL) -> None:
    """Do what UNPRIVILEGED and the execve() of root after it do: no capability but one, now and in all that follows."""
    bounded, setfcap, version = 24, 31, 0x20080522  # PR_CAPBSET_DROP, CAP_SETFCAP, _LINUX_CAPABILITY_VERSION_3
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    for number in range(last + 1):
        if number != setfcap and libc.prctl(bounded, number, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
    kept = 1 << setfcap
    if libc.capset((ctypes.c_uint32 * 2)(version, 0), (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)):
        raise OSError(ctypes.get_errno(), "capset")


if __name__ == "__main__":
    serve()
    runpy.run_module("pytest", run_name="__main__", alter_sys=True)
