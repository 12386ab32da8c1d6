"""The watched namespaces, by id, by inode and by reference."""

from __future__ import annotations

from vethlib.links import NetnsRef

from .observatory import Observatory
from .watch import Watch

__all__ = ["Watched", "spellings"]


class Watched:
    """The watched namespaces.

    `by_ref` has each namespace under the spellings by which it was given. `doubtful` are those whose links may have
    changed without an event: the time of the next dump, and the pause after it if that fails.
    """

    def __init__(self) -> None:
        self.by_nsid: dict[int, Watch] = {}
        self.by_inode: dict[int, Watch] = {}
        self.by_ref: dict[object, Watch] = {}
        self.doubtful: dict[Watch, tuple[float, float]] = {}

    def add(self, watch: Watch) -> None:
        """Add a namespace, whose reference is published later."""
        self.by_nsid[watch.nsid] = self.by_inode[watch.inode] = watch
        watch.observatory.watched += 1

    def move(self, watch: Watch, observatory: Observatory, nsid: int) -> None:
        """Note that a namespace is now watched from another observatory, in which it has this id."""
        del self.by_nsid[watch.nsid]
        watch.observatory.watched -= 1
        watch.observatory, watch.nsid = observatory, nsid
        self.by_nsid[nsid] = watch
        observatory.watched += 1

    def drop(self, watch: Watch) -> None:
        """Remove a namespace. The id remains until the observatory ends; its events are read and dropped."""
        if self.by_nsid.pop(watch.nsid, None) is None:
            return
        watch.observatory.watched -= 1
        self.doubtful.pop(watch, None)
        for spelling in watch.spellings:
            if self.by_ref.get(spelling) is watch:
                del self.by_ref[spelling]
        if self.by_inode.get(watch.inode) is watch:
            del self.by_inode[watch.inode]
        watch.table = {}
        watch.fresh = None
        watch.is_over = True

    def drop_ref(self, ref: str) -> NetnsRef:
        """Remove a reference, in both spellings, and its namespace unless that has other references.

        Returns the first of the others; None if there are none.
        """
        watch = self.named(ref)
        if watch is None:
            return None
        lost = spellings(ref)
        others = tuple(other for other in watch.refs if other not in lost)
        if not others:
            self.drop(watch)
            return None
        for spelling in lost:
            self.by_ref.pop(spelling, None)
        watch.refs = others
        return watch.netns

    def named(self, ref: NetnsRef) -> Watch | None:
        """Return the namespace that was given by this reference, or by its other spelling: "netns:blue" for "blue"."""
        if ref is not None and not isinstance(ref, str):
            return None
        return next((self.by_ref[each] for each in spellings(ref or "") if each in self.by_ref), None)

    def netns(self) -> list[NetnsRef]:
        """Return the first reference of each namespace."""
        return [watch.netns for watch in self.by_nsid.values() if watch.fresh is None]

    def unpublished(self) -> list[Watch]:
        """Return the namespaces whose dump is not in force yet."""
        return [watch for watch in self.by_nsid.values() if watch.fresh is not None]

    def at(self, observatory: Observatory) -> list[Watch]:
        """Return the namespaces that are watched from this observatory."""
        return [watch for watch in self.by_nsid.values() if watch.observatory is observatory]


def spellings(ref: str) -> tuple[str, ...]:
    """Return both spellings of a reference to a named namespace; any other reference has only one.

    "pid:42" is not "netns:pid:42": the name of a namespace may contain a colon.
    """
    name = ref.removeprefix("netns:")
    return (ref,) if not name or ":" in name else (name, f"netns:{name}")
