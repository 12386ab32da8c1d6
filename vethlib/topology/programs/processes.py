"""Start the programs of a node, and prepare the files that they see.

A program inherits the namespaces of the thread that starts it. So each is started by a separate thread, which enters
the namespaces of the node and ends there; the calling thread stays in its own. (If the call waits for the program, so
does that thread.) Programs that nobody waits for end with the node and with Python (ending.py), and with the process,
however the process ends (supervision.py).
"""

from __future__ import annotations

import os
import subprocess
import weakref
from collections.abc import Callable, Mapping, Sequence
from socket import AF_UNIX
from typing import Any

from vethlib import ns
from vethlib._primitives import RLock
from vethlib.errors import NotPermitted, VethError, errno_text
from vethlib.ns import Netns
from vethlib.ns.programs.errand import Errand, Stays, go_to
from vethlib.ns.programs.start import popen, words
from vethlib.topology.descriptors import keep_room

from . import mounts, supervision, supervisor

__all__ = ["Programs", "as_text"]


def as_text(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of subprocess.Popen that make its streams text, in the encoding of the locale by default."""
    if {"text", "universal_newlines", "encoding"}.isdisjoint(options):
        return {"encoding": "locale", **options}  # like text=True, but without its possible warning (PEP 597)
    return {"text": True, **options}


class Programs:
    """The programs of one node.

    `files` are the texts that replace files, by path; callables are called when the first program is started.
    """

    def __init__(self, netns: Netns, files: Mapping[str, str | Callable[[], str]]) -> None:
        self.files = dict(files)
        self._netns = netns
        self._maker = os.getpid()
        self._view: mounts.View | None = None
        self._missing: OSError | None = None
        self._watched_by = 0  # the id of the process whose supervisor knows the namespace
        # Reentrant, because a signal handler may use the node while its first program is being started.
        self._lock = RLock()
        self._asked = ""  # the path whose text is being computed for the first program
        # A node may be garbage-collected without being closed, and the inode number of its namespace reused.
        self._dropping = weakref.finalize(self, supervision.drop_netns, netns.identity[1])
        self._dropping.atexit = False

    def begin(
        self,
        command: Sequence[str],
        options: Mapping[str, Any],
        keep: Callable[[subprocess.Popen[Any]], object],
        stays: Stays | None = None,
    ) -> subprocess.Popen[Any]:
        """Start a program like ``subprocess.Popen``. Raises the same errors, and NetnsNotFound.

        `keep` is called with the program before any interruption is possible. With `stays`, the thread that starts it
        ends only when the function is called that is added to it.
        """
        command = words(command)
        with ns.open_owned(self._netns) as netns:
            keep_room()  # for its pipes, and the mount namespace of the node
            self._prepare(netns)
            fd, view, directory = netns.fileno(), self._view, _working_directory()

            def begin() -> subprocess.Popen[Any]:
                go_to(fd)
                if view is not None:
                    view.enter(directory)
                process = popen(command, options)
                keep(process)
                supervision.watch_process(process.pid)
                return process

            return Errand(begin, undo=_kill, stays=stays).run()

    def put(self, path: str, text: str | Callable[[], str]) -> None:
        """Replace the file `path` with `text` for the programs of the node, including those that are already running.

        Raises NotPermitted if mounts are forbidden, or if there is no such file. Then nothing changes.
        """
        given = text if isinstance(text, str) else None
        while True:
            with self._lock:
                if self._view is None:
                    mounts.check(path)
                elif given is not None:
                    _put(self._view, {path: given})
                if self._view is None or given is not None:
                    self.files[path] = text
                    return
            given = _computed(text)  # without the lock, so that a callable can use programs, which see the former file

    def forget(self, process: subprocess.Popen[Any]) -> None:
        """Note that a program has been waited for."""
        supervision.drop_processes({process.pid})

    @property
    def view(self) -> mounts.View | None:
        """The mount namespace that only programs of the node are in, if there is one and this process made it."""
        return self._view if self._maker == os.getpid() else None

    def let_run(self) -> None:
        """Let the node's programs continue when this process ends, or note that none of them is left."""
        self._dropping()

    def close(self) -> None:
        """Release the node's mount namespace, which ends with the last program in it."""
        view, self._view = self._view, None  # first, so that an interruption leaves no closed view behind
        if view is not None:
            view.close()

    def _prepare(self, netns: ns.Descriptor) -> None:
        """Create what a program needs: the supervisor that ends it and the mount namespace it runs in."""
        with self._lock:
            if self._asked:
                raise VethError(f"the text of {self._asked} uses a program of its node, which needs that text first")
            if self._watched_by != os.getpid() or supervision.is_lost():
                Errand(supervision.begin).run()
                # In a forked child, the processes in the namespace may be its parent's.
                if self._maker == os.getpid() and self._dropping.alive:
                    supervision.watch_netns(self._netns.identity[1], _cookie(self._netns, netns.fileno()))
                self._watched_by = os.getpid()
            if self._view is None and self._missing is None:
                self._make_mounts(netns)
            if self._missing is not None and self.files:
                number = self._missing.errno or 0
                message = f"mounts are forbidden here, so the node cannot have its own {next(iter(self.files))}"
                raise NotPermitted(f"{message}: {errno_text(number) if number else self._missing}", errno=number)

    def _make_mounts(self, netns: ns.Descriptor) -> None:
        def make() -> mounts.View:
            go_to(netns.fileno())
            return mounts.make()

        try:
            view = Errand(make).run()
        except OSError as error:
            if isinstance(error, VethError):
                raise
            self._missing = error
            return
        try:
            self._fill(view)
        except BaseException:
            view.close()
            raise
        if self._view is None:
            self._view = view
        else:
            view.close()  # a signal handler has started the first program meanwhile

    def _fill(self, view: mounts.View) -> None:
        files: dict[str, str | Callable[[], str]] = {}
        while files != self.files:  # a signal handler, or a callable, may have replaced another text meanwhile
            files = dict(self.files)
            _put(view, {path: self._text(path, text) for path, text in files.items()})

    def _text(self, path: str, text: str | Callable[[], str]) -> str:
        self._asked = path
        try:
            return _computed(text)
        finally:
            self._asked = ""


def _computed(text: str | Callable[[], str]) -> str:
    return text if isinstance(text, str) else text()


def _put(view: mounts.View, texts: Mapping[str, str]) -> None:
    Errand(lambda: view.put(texts)).run()


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""  # it has been removed


def _kill(process: subprocess.Popen[Any]) -> None:
    with process:
        process.kill()
    supervision.drop_processes({process.pid})


def _cookie(netns: Netns, fd: int) -> int:
    """Return the cookie of a network namespace, or its tag before Linux 5.14; 0 if it can have neither."""

    def tag() -> int:
        go_to(fd)
        return supervisor.tag()

    try:
        with netns.socket(AF_UNIX) as inside:
            return supervisor.cookie_of(inside)
    except (OSError, VethError):
        pass
    try:
        return Errand(tag).run()
    except (OSError, VethError):
        return 0  # /proc/sys is read-only in a container
