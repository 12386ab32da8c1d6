"""Create many pairs: slab by slab, with one outcome for each, and without leaving anything half-made.

:mod:`.building` has the messages of a slab. Pairs that fail halfway are deleted again, in bulk. Which pairs were
created is read from the outcomes of the exchange and never recorded separately, so it is known whenever an interruption
occurs; the functions here follow the rules of :mod:`.undo`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple, NoReturn

from vethlib._primitives import time
from vethlib.errors import BatchError, DuplicateAddress, NetnsNotFound, VethError, WaitTimeout, is_exhaustion
from vethlib.links import NetnsRef, Pair, Veth, spell
from vethlib.session.core.namespaces import Birth, Identity, Namespaces, OpenNetns
from vethlib.session.core.slabs import Slab as Positions
from vethlib.session.core.slabs import slabs
from vethlib.session.core.undo import note, undo_all
from vethlib.session.read.dying import Patience
from vethlib.session.read.samelink import KnownVeth
from vethlib.session.write.delete import delete_indexes, look
from vethlib.session.write.grouped import random_group

from .building import Slab
from .freenames import FreeNames
from .job import Job, Side

__all__ = ["Creation", "Made", "Planned"]


class Made(NamedTuple):
    """A pair that was created for `veth`, with the identity and the cookie of each end's namespace.

    No other namespace has had the same cookie since the boot (SO_NETNS_COOKIE); it is 0 before Linux 5.14.
    """

    veth: Veth
    pair: Pair
    a: Birth
    b: Birth


class Planned(NamedTuple):
    """A pair that is about to be created for `veth`, with the identity of each end's namespace."""

    veth: Veth
    a: Identity
    b: Identity


class _EndAt(NamedTuple):
    """Where an end is, for use after the namespaces of its slab are closed; ifindex 0 if it is unknown."""

    ref: NetnsRef
    birth: Birth
    ifindex: int
    name: str
    known: KnownVeth


class _Entry:
    """A pair that may have to be undone: its ends, whether the first is that of `veth.a`, and whether it is gone.

    `is_missing` is True if its first end is no longer in the namespace in which it was created.
    """

    __slots__ = ("a_is_first", "ends", "gone", "is_missing")

    def __init__(self, job: Job) -> None:
        echo = job.echo
        outer = job.outer.index or (echo.ifindex if echo else 0)
        peer = job.peer.index or (echo.link or 0 if echo else 0)
        self.ends = (_end_at(job, job.outer, outer), _end_at(job, job.peer, peer))
        self.a_is_first = job.outer is job.a
        self.gone = self.is_missing = False


def _end_at(job: Job, side: Side, index: int) -> _EndAt:
    return _EndAt(side.place.ref, side.place.birth, index, side.name, job.known(side))


class Creation:
    """One call that creates pairs; see Session.create_many.

    `release` lets the session close its home namespace. It is called when the call has failed and nothing is left to be
    undone, because an error that somebody keeps keeps this object alive. After a success, only the return follows.
    """

    def __init__(
        self,
        open_namespaces: Callable[[], Namespaces],
        veths: Sequence[Veth],
        *,
        keep_going: bool,
        wait: float | None = None,
        together: bool = False,
        reads: bool = True,
        release: Callable[[], object] = lambda: None,
    ) -> None:
        self._open_namespaces = open_namespaces
        self.release = release
        self._reads = reads
        self._veths = veths
        self._keep_going = keep_going
        self._wait = wait
        self._group = random_group() if together else None
        self._patience = Patience(wait)
        self._names = FreeNames(end for veth in veths for end in (veth.a, veth.b))
        self._pairs: list[Pair | None] = [None] * len(veths)
        self._ledger: dict[int, _Entry] = {}
        self._failed: dict[int, VethError] = {}
        self._under_way: Sequence[Job] = ()
        self._put_off: list[Slab] = []  # pairs that exist, but whose routes wait for their sources
        self._tell: Callable[[list[Made]], object] | None = None
        self._announce: Callable[[list[Planned]], object] | None = None
        self.verdict: VethError | None = None  # the error of a call that has ended; the pairs in its `created` stay

    def run(
        self,
        progress: Callable[[int, int], object] | None = None,
        made: Callable[[list[Made]], object] | None = None,
        before: Callable[[list[Planned]], object] | None = None,
    ) -> list[Pair]:
        """Create all pairs, slab by slab, and wait until they are usable, if `wait` was given.

        After any exception other than the `verdict`, the caller has to call :meth:`take_back` once more.
        """
        self._tell = made
        self._announce = before
        try:
            return self._run(progress)
        except BaseException as error:
            if error is not self.verdict:
                self.take_back(None)
            raise

    def take_back(self, cause: BaseException | None) -> None:
        """Delete the pairs that were created and still exist. Failures are noted on `cause`, if it is given."""
        for job in self._under_way:
            if job.made and job.position not in self._ledger:
                self._ledger[job.position] = _Entry(job)
        self._delete([(entry, cause) for entry in self._ledger.values() if not entry.gone])

    def _run(self, progress: Callable[[int, int], object] | None) -> list[Pair]:
        total = len(self._veths)
        # More pairs per datagram gain nothing, and with two namespaces each, fewer than 256 descriptors are in use.
        for positions in slabs(range(total)):
            with self._open_namespaces() as namespaces:
                self._build(namespaces, positions)
            if positions.is_repeated:
                continue
            self._give_up_if_failed()
            if progress is not None:
                progress(positions[-1] + 1 - sum(len(slab.jobs) for slab in self._put_off), total)
        for slab in self._put_off:
            with self._open_namespaces() as namespaces:
                self._under_way = slab.jobs
                slab.resume(namespaces)
                self._conclude()
            self._give_up_if_failed()
        if self._put_off and progress is not None:
            progress(total, total)
        if self._wait is not None:
            self._await_all(self._wait)
        pairs = [pair for pair in self._pairs if pair is not None]
        if self._failed:
            errors = [error for _, error in sorted(self._failed.items())]
            self._conclude_with(BatchError(f"{len(errors)} of {total} pairs could not be created", errors), pairs)
        return pairs

    def _conclude_with(self, verdict: VethError, pairs: list[Pair]) -> NoReturn:
        """Raise the verdict, with the pairs that stay as ``created``."""
        verdict.created = pairs
        self.release()
        self.verdict = verdict
        raise verdict

    def _await_all(self, wait: float) -> None:
        deadline = time.monotonic() + wait - self._patience.spent
        for position, pair in enumerate(self._pairs):
            if pair is not None:
                try:
                    self._pairs[position] = self._await(pair, position, wait, deadline)
                except VethError as error:
                    self._not_usable(position, error)

    def _await(self, pair: Pair, position: int, wait: float, deadline: float) -> Pair:
        from vethlib.session.read.wait import Awaited, until_usable  # loaded before the wait began

        veth, entry = self._veths[position], self._ledger[position]
        made = entry.ends if entry.a_is_first else reversed(entry.ends)
        given = veth.a.interfaces, veth.b.interfaces
        ends = [
            Awaited(link.index, link.name, link.netns, end.birth, its, known=end.known)
            for link, end, its in zip(pair, made, given, strict=True)
        ]
        with self._open_namespaces() as namespaces:
            return Pair(*until_usable(namespaces, ends, wait, deadline))

    def _not_usable(self, position: int, error: VethError) -> None:
        """Note why a pair cannot be used yet; it stays. After any other error, it is deleted.

        The other pairs stay in any case: a tenant may delete or move its end while the call waits for another's.
        """
        error.item = self._veths[position]
        if not isinstance(error, WaitTimeout | DuplicateAddress):
            self._pairs[position] = None
            self._delete([(self._ledger[position], error)])
        if not self._keep_going:
            self._conclude_with(error, [pair for pair in self._pairs if pair is not None])
        self._failed[position] = error

    def _build(self, namespaces: Namespaces, positions: Positions[int]) -> None:
        """Create the pairs at these positions, or none if there are too few descriptors for all their namespaces."""
        slab = Slab(namespaces, self._names, reads=self._reads, with_births=self._tell is not None)
        failed: dict[int, VethError] = {}
        for position in positions:
            veth = self._veths[position]
            try:
                slab.jobs.append(Job(position, veth, namespaces, self._group, reads=self._reads))
            except VethError as error:
                error.item = veth
                failed[position] = error
        positions.short = any(map(is_exhaustion, failed.values())) or not slab.reach()
        if positions.is_repeated:
            return
        self._failed |= failed
        self._give_up_if_failed()
        if self._announce is not None and slab.jobs:
            self._announce([Planned(job.veth, job.a.place.identity, job.b.place.identity) for job in slab.jobs])
        self._under_way = slab.jobs
        slab.create(self._patience, keep_going=self._keep_going)
        if self._keep_going or not slab.has_errors:
            rest = slab.finish(put_off=len(positions) < len(self._veths))
            self._put_off += [rest] if rest is not None else []
        self._conclude()

    def _conclude(self) -> None:
        """Note the result for each pair of the slab."""
        half_made: list[tuple[_Entry, BaseException | None]] = []
        ready: list[Made] = []
        for job in self._under_way:
            if job.made:
                self._ledger[job.position] = _Entry(job)
            if job.error is not None:
                self._failed[job.position] = job.error
                if job.made and self._keep_going:
                    half_made.append((self._ledger[job.position], job.error))
            elif job.a.link is not None and job.b.link is not None:
                pair = self._pairs[job.position] = Pair(job.a.link, job.b.link)
                if self._tell is not None:
                    ready.append(Made(job.veth, pair, job.a.place.birth, job.b.place.birth))
        self._under_way = ()
        if half_made:
            self._delete(half_made)
        if self._tell is not None and ready:
            self._tell(ready)

    def _give_up_if_failed(self) -> None:
        if self._failed and not self._keep_going:
            first = self._failed[min(self._failed)]
            if len(self._failed) > 1:
                first.add_note(f"{len(self._failed) - 1} more of the pairs sent with it failed, too")
            raise first

    def _delete(self, entries: Iterable[tuple[_Entry, BaseException | None]], by: int = 0) -> None:
        """Delete pairs through one of their ends; each is given with the error that gets a note if the pair stays."""
        groups: dict[Birth, list[tuple[_Entry, BaseException | None]]] = {}
        for entry, cause in entries:
            groups.setdefault(entry.ends[by].birth, []).append((entry, cause))
        undo_all((partial(self._delete_in, group, by), partial(_stays, group, by)) for group in groups.values())

    def _delete_in(self, group: Sequence[tuple[_Entry, BaseException | None]], by: int) -> None:
        end = group[0][0].ends[by]
        with self._open_namespaces() as namespaces:
            place = namespaces.reopened(end.ref, end.birth)
            left = group if place is None else _delete_ends(namespaces, place, group, by)
        if by == 0:
            # The namespace can no longer be opened (it has ended, or has lost its name), or ends have left it.
            for entry, _ in left if place is not None else ():
                entry.is_missing = True
            self._delete(left, by=1)
            return
        for entry, _ in left:
            entry.gone = place is not None or entry.is_missing  # with its other end, or with that namespace
        if not all(entry.gone for entry, _ in left):
            raise NetnsNotFound(
                "neither of their namespaces can be opened any longer; if these have ended, so have the pairs"
            )


def _delete_ends(
    namespaces: Namespaces, place: OpenNetns, group: Sequence[tuple[_Entry, BaseException | None]], by: int
) -> list[tuple[_Entry, BaseException | None]]:
    """Delete those of these pairs whose end is in `place`; return the others."""
    ends = [entry.ends[by] for entry, _ in group]
    # An ifindex is 0 if it was not echoed and the call was interrupted before looking it up.
    links = look(namespaces, place, [end.ifindex or end.name for end in ends])
    found = [
        link if link is not None and end.known.is_now(link) else None for end, link in zip(ends, links, strict=True)
    ]
    if groups := {link.ifindex: link.group for link in found if link is not None}:
        delete_indexes(namespaces, place, groups)
    for (entry, _), link in zip(group, found, strict=True):
        entry.gone = entry.gone or link is not None
    return [each for each in group if not each[0].gone]


def _stays(group: Sequence[tuple[_Entry, BaseException | None]], by: int, error: BaseException) -> None:
    staying = Counter(id(cause) for entry, cause in group if not entry.gone)
    for cause in {id(cause): cause for _, cause in group}.values():
        if cause is not None and (count := staying[id(cause)]):
            note(cause, f"{count} pairs in {spell(group[0][0].ends[by].ref)} stay behind: {error}")
