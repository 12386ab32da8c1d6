"""A node: an anonymous network namespace that plays one host of a topology, and what a test does in it."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, TypeVar

from . import ns
from .links import Link
from .ns import Netns
from .session import Session

__all__ = ["Node"]

T = TypeVar("T")


class Node:
    """One host of a topology.

    `netns` is its namespace, good as a reference wherever one is taken. In a ``with`` the calling thread is inside.
    """

    def __init__(self, name: str, session: Session) -> None:
        self.name = name
        self.netns = Netns.anonymous()
        self._session = session
        self._blocks = threading.local()
        try:
            session.set("lo", self.netns, up=True)
        except BaseException:
            self.netns.close()
            raise

    def __repr__(self) -> str:
        return f"<Node {self.name} {self.netns}>"

    def __enter__(self) -> Node:
        block = self.netns.entered()
        stack: list[AbstractContextManager[None]] = self._blocks.__dict__.setdefault("stack", [])
        stack.append(block)
        block.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._blocks.stack.pop().__exit__(kind, error, trace)

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call `function` inside; the calling thread is back when this returns."""
        return ns.call_in(self.netns.fd, lambda: function(*args))

    def socket(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM) -> socket.socket:  # noqa: A002
        """A socket that belongs to the node, usable from anywhere."""
        return self.call(socket.socket, family, type)

    def run(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program inside, as ``subprocess.run`` does: output captured as text, failure an exception."""
        options = {"check": True, "capture_output": True, "text": True} | options
        with self:
            result: subprocess.CompletedProcess[str] = subprocess.run(command, **options)
        return result

    def links(self) -> list[Link]:
        """Its links with their addresses."""
        return self._session.links(self.netns)

    def close(self) -> None:
        """End the namespace, and with it its links and their peers."""
        self.netns.close()
