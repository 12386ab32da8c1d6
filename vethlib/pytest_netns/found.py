"""One fact of a look: something that keeps a network namespace alive, is inside, or is a link that is there."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

__all__ = ["Found", "Identity", "Kind"]

Identity: TypeAlias = tuple[int, int]
"""(st_dev, st_ino) of a network namespace. The number is given anew as soon as a namespace has ended."""

Kind: TypeAlias = Literal["link", "name", "descriptor", "socket", "thread", "process"]


class Found(NamedTuple):
    """One fact. `netns` is the namespace that is held, been in, or of the link; None for a link at home, and a name.

    `number` is the ifindex, descriptor, thread id or process id; `text` the name of a link or namespace, the command
    of a process, and of a socket its inode, which no later one has.
    """

    kind: Kind
    netns: Identity | None
    number: int
    text: str = ""

    @property
    def holds(self) -> bool:
        """Whether it is a descriptor or a socket of this process."""
        return self.kind in ("descriptor", "socket")
