"""The environment of the contestants: a home namespace and named ones, in a private network."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from types import TracebackType

from vethlib import Netns, Session, ns

from .contestants.scene import stand

__all__ = ["Arena", "settle"]


class Arena:
    """A home namespace, and the namespaces b0, b1, … and c0, c1, … in /run/netns; for an isolated process.

    Namespaces are reused, because creating 8000 of them takes longer than the work in them. After a contestant has
    failed, its leftovers are unknown, so all namespaces are created again.
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
        """Enter the home namespace with the calling thread, and the children that it starts in the block."""
        return self._home.entered()

    def resize(self, *, b: int, c: int) -> None:
        """Keep exactly this number of namespaces of each kind, because others would slow down the work."""
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
        """Create a pair in each of b0, b1, …, which stays until strip()."""
        self._queues = queues
        with self.entered():
            stand(self._sizes["b"], queues)
        settle(self._sizes["b"] / 1000)

    def strip(self) -> None:
        """Delete those pairs."""
        self._queues = None
        self.sweep()

    def renew(self) -> None:
        """Replace the home namespace and the named ones by new ones with the same content."""
        sizes, queues = dict(self._sizes), self._queues
        self.resize(b=0, c=0)
        self._home.close()
        self._home = Netns.anonymous()
        self.resize(**sizes)
        if queues is not None:
            self.furnish(queues)

    def sweep(self) -> int:
        """Delete the pairs left in the home namespace, unless they should stay; return the number of their ends."""
        if self._queues is not None:
            return 0
        with self.entered(), Session() as session:
            left = [link for link in session.links() if link.kind == "veth"]
            session.delete_many(left)
        return len(left)


def settle(patience: float) -> bool:
    """Wait until the machine is idle, up to `patience` seconds; return whether it is.

    The kernel cleans up namespaces and sockets after their users have ended, and does not report when it has finished.
    """
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        before = _jiffies()
        time.sleep(0.05)
        idle, total = (now - then for now, then in zip(_jiffies(), before, strict=True))
        if idle >= 0.9 * total:
            return True
    return False


def _jiffies() -> tuple[int, int]:
    """Return the idle and the total time since the boot, over all CPUs, in ticks (proc_stat(5))."""
    with open("/proc/stat", encoding="ascii") as stat:
        _user, _nice, _system, idle, iowait, *_ = counters = [int(word) for word in stat.readline().split()[1:]]
    return idle + iowait, sum(counters)
