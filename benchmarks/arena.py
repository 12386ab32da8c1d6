"""Where the contestants work: a home namespace and named ones, in a network that nobody else sees."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from types import TracebackType

from vethlib import Netns, Session, ns

from .contestants.scene import stand

__all__ = ["Arena", "settle"]


class Arena:
    """A home and the namespaces b0, b1, … and c0, c1, … of /run/netns; for a process that is isolated already.

    What is there is used again, since making 8000 namespaces takes longer than the work in them. After a contestant has
    failed, nobody knows what it left: then all of it is made anew.
    """

    def __init__(self) -> None:
        self._home = Netns.anonymous()
        self._sizes = {"b": 0, "c": 0}
        self._queues: int | None = None  # of the pairs that stay, if any do

    def __enter__(self) -> Arena:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._home.close()  # the named ones end with our mount namespace

    def entered(self) -> AbstractContextManager[None]:
        """A block during which the calling thread, and a child that it starts, is at home."""
        return self._home.entered()

    def resize(self, *, b: int, c: int) -> None:
        """Have exactly so many of either: what else is there would be paid for by those who work here."""
        changed = 0
        for letter, size in (("b", b), ("c", c)):
            changed += abs(size - self._sizes[letter])
            for number in range(self._sizes[letter], size):
                Netns.create(f"{letter}{number}").close()
            for number in range(size, self._sizes[letter]):
                ns.remove(f"{letter}{number}")
            self._sizes[letter] = size
        settle(changed / 1000)

    def furnish(self, queues: int) -> None:
        """Put a pair into each of b0, b1, …, which stays until strip()."""
        self._queues = queues
        with self.entered():
            stand(self._sizes["b"], queues)
        settle(self._sizes["b"] / 1000)

    def strip(self) -> None:
        """Take those pairs away again."""
        self._queues = None
        self.sweep()

    def renew(self) -> None:
        """Another home, and other namespaces of the same names, with the same in them."""
        sizes, queues = dict(self._sizes), self._queues
        self.resize(b=0, c=0)
        self._home.close()
        self._home = Netns.anonymous()
        self.resize(**sizes)
        if queues is not None:
            self.furnish(queues)

    def sweep(self) -> int:
        """Delete the pairs left at home, unless they are to stay; returns how many ends there were."""
        if self._queues is not None:
            return 0
        with self.entered(), Session() as session:
            left = [link for link in session.links() if link.kind == "veth"]
            session.delete_many(left)
        return len(left)


def settle(patience: float) -> None:
    """Wait until the machine is idle, at most `patience` seconds.

    The kernel takes namespaces and sockets apart after those who used them have gone, and says nowhere when it is done.
    """
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        before = _jiffies()
        time.sleep(0.05)
        idle, total = (now - then for now, then in zip(_jiffies(), before, strict=True))
        if idle >= 0.9 * total:
            return


def _jiffies() -> tuple[int, int]:
    """(those that were idle, all) since the machine started, over all CPUs (proc_stat(5))."""
    with open("/proc/stat", encoding="ascii") as stat:
        _user, _nice, _system, idle, iowait, *_ = counters = [int(word) for word in stat.readline().split()[1:]]
    return idle + iowait, sum(counters)
