"""Creating pairs, many at a time: slab by slab, one outcome for each, and nothing half-made left.

What is sent for a slab is in :mod:`.building`. A pair that fails on the way is deleted again, in bulk. What was made
is read from the account that the exchange keeps, never noted down beside it, so it is known whenever an interruption
comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from ..errors import BatchError, LinkNotFound, VethError
from ..links import Pair, Veth, spell
from .building import Job, Slab
from .delete import delete_indexes
from .places import Identity, Place, Places
from .reading import find

__all__ = ["Creation"]

_SLAB: Final = 64
"""Pairs built together. More per datagram gains nothing, and two namespaces each keep the fds in use below 256."""


class _Made:
    """What undoing a pair takes once its slab's places are closed."""

    __slots__ = ("identity", "index", "name", "ref")

    def __init__(self, job: Job) -> None:
        self.ref = job.outer.place.ref
        self.identity: Identity = job.outer.place.identity
        self.index = job.outer.index or (job.echo.ifindex if job.echo else 0)
        self.name = job.outer.end.name


class Creation:
    """One call that creates pairs; see Session.create_many for what it promises."""

    def __init__(self, open_places: Callable[[], Places], veths: Sequence[Veth], *, keep_going: bool) -> None:
        self._open_places = open_places
        self._veths = veths
        self._keep_going = keep_going
        self._pairs: list[Pair | None] = [None] * len(veths)
        self._made: dict[int, _Made] = {}
        self._failed: dict[int, VethError] = {}
        self._under_way: Sequence[Job] = ()

    def run(self, progress: Callable[[int, int], object] | None) -> list[Pair]:
        """Create them all, slab by slab."""
        total = len(self._veths)
        try:
            for start in range(0, total, _SLAB):
                veths = self._veths[start : start + _SLAB]
                with self._open_places() as places:
                    self._build(places, start, veths)
                self._give_up_if_failed()
                if progress is not None:
                    progress(start + len(veths), total)
        except BaseException as error:
            self._undo(error)
            raise
        if self._failed:
            errors = [error for _, error in sorted(self._failed.items())]
            raise BatchError(f"{len(errors)} of {total} pairs could not be created", errors)
        return [pair for pair in self._pairs if pair is not None]

    def _build(self, places: Places, start: int, veths: Sequence[Veth]) -> None:
        slab = Slab(places)
        for position, veth in enumerate(veths, start):
            try:
                slab.jobs.append(Job(position, veth, places))
            except VethError as error:
                error.item = veth
                self._failed[position] = error
        self._give_up_if_failed()
        self._under_way = slab.jobs
        slab.create()
        if self._keep_going or not slab.has_errors:
            slab.finish()
        self._conclude()

    def _conclude(self) -> None:
        """Note what became of each pair of the slab."""
        half_made: list[tuple[_Made, VethError]] = []
        for job in self._under_way:
            if job.error is not None:
                self._failed[job.position] = job.error
                if job.made and self._keep_going:
                    half_made.append((_Made(job), job.error))
                    continue
            elif job.a.link is not None and job.b.link is not None:
                self._pairs[job.position] = Pair(job.a.link, job.b.link)
            if job.made:
                self._made[job.position] = _Made(job)
        if half_made:
            self._delete([made for made, _ in half_made], half_made[0][1])
        self._under_way = ()

    def _give_up_if_failed(self) -> None:
        if self._failed and not self._keep_going:
            first = self._failed[min(self._failed)]
            if len(self._failed) > 1:
                first.add_note(f"{len(self._failed) - 1} more of the pairs sent with it failed too")
            raise first

    def _undo(self, cause: BaseException) -> None:
        """Delete what was made."""
        under_way = {job.position: _Made(job) for job in self._under_way if job.made}
        self._delete((self._made | under_way).values(), cause)

    def _delete(self, made: Iterable[_Made], cause: BaseException) -> None:
        """Take pairs back. A failure of that is noted on `cause`, which is what the caller is to hear of."""
        groups: dict[Identity, list[_Made]] = {}
        for one in made:
            groups.setdefault(one.identity, []).append(one)
        for identity, group in groups.items():
            try:
                with self._open_places() as places:
                    place = places(group[0].ref)
                    # Another namespace under the same name now: ours is gone, and its pairs with it.
                    if place.identity == identity:
                        _delete_made(places, place, group)
            except VethError as error:
                cause.add_note(f"{len(group)} pairs in {spell(group[0].ref)} stay behind: {error}")


def _delete_made(places: Places, place: Place, group: Sequence[_Made]) -> None:
    indexes = [made.index for made in group if made.index]
    for made in group:
        if not made.index:
            # Interrupted before an index that was not echoed was looked up.
            try:
                indexes.append(find(places, place, made.name, made.ref, "undo").ifindex)
            except LinkNotFound:
                pass
    if indexes:
        delete_indexes(places, place, indexes)
