"""The facts of a look: whatever keeps a network namespace alive or is inside one, and links."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

__all__ = ["Found", "Identity", "Kind"]

Identity: TypeAlias = tuple[int, int]
"""(st_dev, st_ino) of a network namespace. The kernel reuses the inode number as soon as a namespace has ended."""

Kind: TypeAlias = Literal["link", "name", "descriptor", "socket", "thread", "process"]


class Found(NamedTuple):
    """A fact. `netns` is the namespace that it concerns; None for a link in the home namespace, and for a name.

    `number` is the ifindex, descriptor, thread id or process id. `text` is the name of a link or namespace, the command
    of a process, or the inode of a socket, which is never reused.
    """

    kind: Kind
    netns: Identity | None
    number: int
    text: str = ""

    @property
    def holds(self) -> bool:
        """Whether it is a descriptor or a socket of this process."""
        return self.kind in ("descriptor", "socket")
