"""The methods of a session that create and delete pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

from vethlib.errors import BatchError, InvalidValue, check_callback
from vethlib.linkref import NO_ITEM, LinkRef, as_items, as_list, locate
from vethlib.links import Link, NetnsRef, Pair, Veth, check_lookup_name, check_up, check_veth, check_wait
from vethlib.session.core.namespaces import Birth
from vethlib.session.core.refusal import loading

from .base import SessionBase

if TYPE_CHECKING:
    from vethlib.session.write.creating.create import Creation, Made, Planned
    from vethlib.session.write.delete import DeleteItem

__all__ = ["CreatingSession"]


class CreatingSession(SessionBase):
    """A session that creates and deletes pairs."""

    def create(self, veth: Veth, *, wait: float | None = None, read: bool = True) -> Pair:
        """Create a pair, each end directly in its namespace, and return both links with their ifindexes.

        Without `wait`, the ends may not have a carrier yet: their operstate may be "unknown" or "down" for a moment.
        With `wait`, wait up to that many seconds until both ends are up and their addresses usable. This includes
        waiting for links of the same names that are about to vanish with the namespace of their peer.

        With read=False, the new links are not read, but described by what was requested and what the kernel returned:
        ``operstate`` is "unknown" if the link is up; for one of the ends, ``peer_netnsid`` is None, and ``ipv6`` is
        True unless it was given. If that end has no MAC, vethlib chooses one.

        Raises LinkExists (the message names the link; ``dying`` is True if the name is about to become free),
        NetnsNotFound, NotPermitted or NetlinkError, and creates nothing then. Raises WaitTimeout or DuplicateAddress if
        the pair was created but did not become usable. A link that is renamed meanwhile is returned under its new name.
        """
        creation = self._creation([veth], wait, read=read)
        try:
            return creation.run()[0]
        except BaseException as error:
            if error is not creation.verdict:
                creation.take_back(error)
                creation.release()
            raise

    def create_many(
        self,
        veths: Iterable[Veth],
        *,
        on_error: Literal["rollback", "continue"] = "rollback",
        progress: Callable[[int, int], object] | None = None,
        made: Callable[[list[Made]], object] | None = None,
        before: Callable[[list[Planned]], object] | None = None,
        wait: float | None = None,
        together: bool = False,
        read: bool = True,
    ) -> list[Pair]:
        """Create many pairs in batches and return them in order.

        With on_error="rollback", the first failure ends the call: pairs created so far are deleted, and the error is
        raised with the Veth as its ``item``. With on_error="continue", all other pairs are created; then BatchError is
        raised with one error per failed pair, and the created pairs as ``created``. An interruption undoes everything
        in both cases. `progress(done, total)` is called from time to time. `made` is called with the pairs of each
        batch as soon as they are complete, each with the identities of its namespaces, and `before` just before they
        are created. Pairs with routes whose sources the kernel still checks for duplicates are completed last.

        `read` and `wait` apply as for :meth:`create`, `wait` to all pairs together; read=False takes a tenth to a fifth
        less time. A pair that does not become usable in time remains, and is in ``created`` of the WaitTimeout or
        DuplicateAddress, or of the BatchError that contains it. If an end is deleted or moved during the wait, or
        waiting for it fails, its pair is deleted, and the others remain: they are in ``created`` of the LinkNotFound,
        NetnsNotFound or NetlinkError.

        With `together`, the pairs are prepared for being deleted together: one end of each (the end in the home
        namespace, if there is one) is put into a link group of this call (a number above 2³¹, shown by ``ip -d link``),
        unless its End specifies a group. On a host with thousands of links with IPv6, this makes it much faster to
        delete all or most of them.
        """
        if on_error not in ("rollback", "continue"):
            raise InvalidValue("on_error", on_error, 'must be "rollback" or "continue"')
        check_up(together, "together")
        for field, callback in (("progress", progress), ("made", made), ("before", before)):
            check_callback(callback, field)
        keep_going = on_error == "continue"
        wanted = as_list(veths, "veths", "must be a list of Veths")
        creation = self._creation(wanted, wait, read=read, keep_going=keep_going, together=together)
        try:
            return creation.run(progress, made, before)
        except BaseException as error:
            if error is not creation.verdict:
                creation.take_back(error)
                creation.release()
            raise

    def _creation(
        self,
        veths: list[Veth],
        wait: float | None,
        *,
        read: bool,
        keep_going: bool = False,
        together: bool = False,
    ) -> Creation:
        with loading:
            from vethlib.session.write.creating.create import Creation  # 3 ms, only for creating

        for veth in veths:
            check_veth(veth)
        if wait is not None:
            check_wait(wait)
            with loading:
                from vethlib.session.read.wait import until_usable  # noqa: F401 - 1 ms, and nothing to wait for yet
        check_up(read, "read")
        opening = self._for_one_call()
        return Creation(
            opening, veths, keep_going=keep_going, wait=wait, together=together, reads=read, release=opening.close
        )

    def delete(self, name: LinkRef, netns: NetnsRef = "", *, missing_ok: bool = False) -> None:
        """Delete a pair, given one of its ends as a name, a Link or an End.

        Given a :class:`Link`, this deletes only that very link; the same holds for all methods that accept a Link. The
        link must have the same ifindex, in the namespace in which it was read (one with the same ``cookie``). Because
        another program may move a link with that ifindex there, a veth must also have the same MAC or the same peer,
        unless its peer is unknown. If a cookie is unknown (before Linux 5.14), a link outside the home namespace, whose
        namespace may have been created again since, must have the same MAC, or its peer must be in the home namespace
        and have the same ifindex.

        Raises LinkNotFound or NetnsNotFound (not with `missing_ok`), and NotSupported if the link is not a veth.
        """
        with loading:
            from vethlib.session.write.delete import Deletion

        name, netns, index, seen = locate(name, netns)
        check_lookup_name(name)
        item = seen or ((name, netns) if index is None else (name, netns, index))
        with self._for_one_call() as opening:
            for error in Deletion(opening, [item], missing_ok=missing_ok).run():
                raise error

    def delete_many(
        self,
        items: Iterable[DeleteItem],
        *,
        missing_ok: bool = True,
        renamed_ok: bool = False,
        only_if: Callable[[DeleteItem, Link, Birth], bool] | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        """Delete many pairs, each given by one end or both, with as few unregistrations in the kernel as possible.

        An end is (name, netns) or an :class:`End`. With (name, netns, ifindex) or a :class:`Link`, a link is deleted
        only if its name and ifindex still match; with `renamed_ok`, only the ifindex has to match. A Link must still be
        the same link, as for :meth:`delete`.

        Ifindexes and identities of namespaces are reused. So with `only_if`, a link is deleted only if that is true:
        ``only_if(item, link, birth)`` is called just before, and if it returns False, the link is treated as missing.
        `link` is the link as it is now, without its addresses, and `birth` the :meth:`identity` and :meth:`cookie` of
        its namespace. It is called twice for a pair without an end in the home namespace, which is deleted after the
        others.

        All links that can be deleted are deleted. If any failed, BatchError is then raised, with one error per failed
        item.
        """
        with loading:
            from vethlib.session.write.delete import Deletion

        check_callback(only_if, "only_if")
        check_callback(progress, "progress")
        items = as_list(items, "items", NO_ITEM)
        for name, *_ in as_items(items):
            check_lookup_name(name)
        with self._for_one_call() as opening:
            deletion = Deletion(opening, items, missing_ok=missing_ok, renamed_ok=renamed_ok, only_if=only_if)
            failed = deletion.run(progress) if items else []
        if failed:
            raise BatchError(f"{len(failed)} of {len(items)} links could not be deleted", failed)
