"""Session: the imperative contract. Each method checks its arguments, opens the namespaces it needs, and hands over."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Literal, overload

from .. import ns
from .._nl.sock import RtnlSocket
from ..errors import BatchError, InvalidValue, SessionClosed, VethError
from ..links import (
    Address,
    Borne,
    Interface,
    Link,
    NetnsRef,
    Pair,
    Stats,
    Veth,
    check_addresses,
    check_alias,
    check_group,
    check_lookup_name,
    check_mac,
    check_mtu,
    check_name,
    check_proto,
    describe,
)
from .change import Change, change, move
from .create import Creation
from .delete import DeleteItem, Deletion
from .known import Cache, Known
from .lookup import look_up
from .places import Place, Places
from .reading import (
    addresses_of,
    find,
    find_index,
    missing,
    read_addresses,
    read_details,
    read_link,
    read_links,
    read_stats,
)
from .refusal import system_errors
from .wait import until_usable

if TYPE_CHECKING:
    from ..rates import Sample
    from .survey import Survey

__all__ = ["Session"]


class Session:
    """A way into the kernel: creates, changes, moves, deletes and reads links in any namespace.

    Home is the namespace of the thread that makes the session; it stays home for every thread that uses it. A
    `resolver` turns the label of a "microservice:label" reference into another reference.

    Threads may share a session. A process forked from this one may not use it. Close it, or use it in a ``with``.
    Raises NotPermitted or NetlinkError when the kernel gives no rtnetlink socket.
    """

    def __init__(self, *, resolver: Callable[[str], str] | None = None) -> None:
        self._closed = True  # until there is something to close
        self._pid = os.getpid()
        self._resolver = resolver
        with system_errors("start a session"):
            self._home = Place("", ns.current(), is_home=True)
            self._home.socket = RtnlSocket()
        self._known = Known()
        self._closed = False

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._closed and self._pid == os.getpid():
            warnings.warn(f"unclosed {self!r}: close it, or use `with Session()`", ResourceWarning, 2, self)
            self.close()

    def close(self) -> None:
        """Give the socket back; twice is harmless. Links stay."""
        if not self._closed:
            self._closed = True
            self._home.close()

    @property
    def resolver(self) -> Callable[[str], str] | None:
        """What turns the label of a "microservice:label" reference into another reference, if something does."""
        return self._resolver

    def _places(self) -> Places:
        if self._pid != os.getpid():
            raise SessionClosed(
                f"this session belongs to process {self._pid}: after a fork, the child makes a session of its own"
            )
        if self._closed:
            raise SessionClosed("this session is closed")
        return Places(self._home, self._resolver, self._known)

    def attach(self, cache: Cache) -> None:
        """Find links by name in `cache` where it knows them, and keep it right after every change made here.

        A :class:`Link` that is returned is the kernel's own answer all the same. The cache is not kept alive. An
        IfIndexCache attaches itself, and detaches when it is closed.
        """
        self._known.add(cache)

    def detach(self, cache: Cache) -> None:
        """The opposite of :meth:`attach`; of a cache that is not attached, nothing."""
        self._known.remove(cache)

    def create(self, veth: Veth, *, wait: float | None = None) -> Pair:
        """Create a pair where it is to live; returns both ends with their real indexes.

        With `wait`, returns when both ends are up and their addresses usable, at most so many seconds later.

        Raises LinkExists (a name is taken; the message says which), NetnsNotFound, NotPermitted, NetlinkError; then
        nothing was created. Raises WaitTimeout or DuplicateAddress; then the pair is there.
        """
        return self.create_many([veth], wait=wait)[0]

    def create_many(
        self,
        veths: Iterable[Veth],
        *,
        on_error: Literal["rollback", "continue"] = "rollback",
        progress: Callable[[int, int], object] | None = None,
        wait: float | None = None,
    ) -> list[Pair]:
        """Create many pairs in batches; returns them in order.

        on_error="rollback": the first pair that fails ends it, what had been made is deleted, and the pair's error is
        raised, with the Veth in its ``item``. So does an interruption. on_error="continue": all that can be made is
        made, then BatchError has one error per pair that could not. `progress(done, total)` is called now and then.
        `wait` as for :meth:`create`.
        """
        if on_error not in ("rollback", "continue"):
            raise InvalidValue("on_error", on_error, 'say "rollback" or "continue"')
        veths = list(veths)
        creation = Creation(self._places, veths, keep_going=on_error == "continue")
        pairs = creation.run(progress)
        if wait is None:
            return pairs
        deadline = time.monotonic() + wait
        return [Pair(*self._wait_for(pair, wait, deadline)) for pair in pairs]

    def _wait_for(self, pair: Pair, timeout: float, deadline: float) -> list[Link]:
        with self._places() as places:
            return until_usable(places, [(link.name, link.netns) for link in pair], timeout, deadline)

    def delete(self, name: str, netns: NetnsRef = "", *, missing_ok: bool = False) -> None:
        """Delete a pair through one of its ends.

        Raises LinkNotFound, NetnsNotFound (neither with `missing_ok`), NotSupported when the link is no veth.
        """
        check_name(name)
        for error in Deletion(self._places, [(name, netns)], missing_ok=missing_ok).run():
            raise error

    def delete_many(
        self,
        items: Iterable[DeleteItem],
        *,
        missing_ok: bool = True,
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        """Delete many pairs, each by one end or both, with as few unregistrations as can be.

        An end is (name, netns); (name, netns, ifindex) or a :class:`Link` that was seen is deleted only if it still is
        that one.

        Does all it can, then raises BatchError with one error per item that failed.
        """
        items = list(items)
        _refuse_bare_names(items)
        for item in items:
            if not isinstance(item, Link):
                check_name(item[0])
        if failed := Deletion(self._places, items, missing_ok=missing_ok).run(progress) if items else []:
            raise BatchError(f"{len(failed)} of {len(items)} links could not be deleted", failed)

    def set(
        self,
        name: str,
        netns: NetnsRef = "",
        *,
        index: int | None = None,
        new_name: str | None = None,
        up: bool | None = None,
        mac: str | None = None,
        mtu: int | None = None,
        alias: str | None = None,
        group: int | None = None,
        addresses: Iterable[str | Interface] | None = None,
        add_addresses: Iterable[str | Interface] = (),
        remove_addresses: Iterable[str | Interface] = (),
        address_proto: int = 0,
        wait: float | None = None,
    ) -> Link:
        """Change what is given of a link, and nothing else; returns it as it has become.

        `addresses` is the whole set the link is to have (IPv6 link-local ones aside); `add_addresses` and
        `remove_addresses` change single ones. `alias=""` clears the alias. Taking a link down drops its IPv6 addresses.
        With `index`, the link is changed only if that is its ifindex still. With `wait`, returns when the link is up
        and its addresses usable, at most so many seconds later.

        Raises LinkNotFound, LinkExists (`new_name` is taken), NetlinkError naming the field; then nothing has changed.
        """
        check_name(name)
        check_proto(address_proto)
        given_addresses = None if addresses is None else check_addresses(addresses)
        add = check_addresses(add_addresses, "add_addresses")
        remove = check_addresses(remove_addresses, "remove_addresses")
        if given_addresses is not None and (add or remove):
            raise InvalidValue("addresses", addresses, "give the whole set or differences, not both")
        wanted = Change(
            None if new_name is None else check_name(new_name, "new_name"),
            up,
            None if mac is None else check_mac(mac),
            None if mtu is None else check_mtu(mtu),
            None if alias is None else check_alias(alias),
            None if group is None else check_group(group),
            given_addresses,
            add,
            remove,
            address_proto,
        )
        with self._places() as places:
            link = change(places, places(netns), name, netns, wanted, index)
            if wait is None:
                return link
            return until_usable(places, [(link.name, netns)], wait)[0]

    def restore_addresses(
        self, name: str, netns: NetnsRef = "", *, addresses: Iterable[Address], index: int | None = None
    ) -> None:
        """Give a link back the addresses that were seen on it: label, lifetimes, flags, owner, and the order of IPv4.

        Others are taken away. The link-local address that the kernel makes of a MAC is left to it. With `index`, only
        if that is the link's ifindex still. Raises LinkNotFound, NetnsNotFound, NetlinkError.
        """
        from .restore import restore_addresses  # for a rollback

        check_name(name)
        with self._places() as places:
            place = places(netns)
            link = find(places, place, name, netns)
            if index not in (None, link.ifindex):
                raise missing(name, netns, f"give back the addresses of {describe(name, netns)}")
            restore_addresses(places, place, link.ifindex, name, netns, list(addresses))

    def move(self, name: str, netns: NetnsRef = "", *, to: NetnsRef) -> Link:
        """Move a link to another namespace; returns it as it is there.

        The kernel takes it down, drops its addresses, and gives it another index where its own is taken; it needs some
        20 ms. Creating a pair where it is to live costs nothing of the kind.

        Raises LinkNotFound, LinkExists (the name is taken there), NetnsNotFound, NetlinkError; then it has not moved.
        """
        check_name(name)
        with self._places() as places:
            return move(places, places(netns), name, netns, places(to), to)

    def index(self, name: str, netns: NetnsRef = "") -> int:
        """The ifindex of the link of that name, or alternative name. Raises LinkNotFound, NetnsNotFound.

        By a cache that is attached and watches the namespace, or by one exchange with the kernel.
        """
        check_lookup_name(name)
        with self._places() as places:
            return find_index(places, places(netns), name, netns)

    def lookup(self, name: str, netns: NetnsRef = "") -> Link:
        """The link of that name, or alternative name, with its addresses. Raises LinkNotFound, NetnsNotFound."""
        check_lookup_name(name)
        with self._places() as places:
            return read_link(places, places(netns), name, netns)

    def lookup_many(self, items: Iterable[tuple[str, NetnsRef]], *, addresses: bool = True) -> list[Link]:
        """The link of each (name, netns), in order: what :meth:`lookup` does, for many in few exchanges.

        With addresses=False they are not read, which takes less than half the time; then ``Link.addresses`` is empty.
        Raises LinkNotFound, NetnsNotFound for the first that is not there, which is the error's ``item``.
        """
        items = list(items)
        _refuse_bare_names(items)
        for name, _ in items:
            check_lookup_name(name)
        return look_up(self._places, items, addresses=addresses)

    def links(self, netns: NetnsRef = "") -> list[Link]:
        """Every link of a namespace with its addresses, of any kind. Raises NetnsNotFound."""
        with self._places() as places:
            return read_links(places, places(netns), netns)

    def addresses(self, netns: NetnsRef = "") -> list[Address]:
        """Every address of a namespace, with what tells whose it is and whether it can be used."""
        with self._places() as places:
            return addresses_of(read_addresses(places, places(netns)))

    def details(self, name: str, netns: NetnsRef = "") -> dict[str, object]:
        """All that the kernel says of a link, decoded by pyroute2 (whose import costs 120 ms): {"IFLA_MTU": 1500, …}.

        Raises LinkNotFound, NetnsNotFound.
        """
        check_lookup_name(name)
        with self._places() as places:
            return read_details(places, places(netns), name, netns)

    def survey(self, refs: Iterable[str]) -> Survey:
        """Look at many namespaces at once: all their links and addresses, and where each veth's other end is.

        A reference that leads nowhere is not an error; its entry in ``places`` says why. Raises NotPermitted and
        NetlinkError.
        """
        from .survey import survey  # 1 ms, for the agent

        return survey(self._places, refs)

    def inspect(self, links: Iterable[tuple[str, str | int]], refs: Iterable[str] = ()) -> Survey:
        """Look at single links, each (reference, name or alternative name) or (reference, ifindex).

        As :meth:`survey`, but of the links given: those that are there, each once, with their addresses, and ``peer``
        where both ends are among them. ``places`` has all references of `links` and `refs`. What it costs does not
        depend on what else there is (0.2 ms for a pair). Raises NotPermitted and NetlinkError.
        """
        from .survey import inspect  # as above

        return inspect(self._places, links, refs)

    def identity(self, netns: NetnsRef = "") -> tuple[int, int]:
        """(st_dev, st_ino) of the namespace a reference leads to now: equal exactly if it is the same namespace.

        It holds while the namespace is alive; the kernel gives the number of a dead one to another. Raises
        NetnsNotFound, NotPermitted, NetlinkError, InvalidValue.
        """
        with self._places() as places:
            return places(netns).identity

    def borne(self, links: Iterable[tuple[str, int]]) -> list[Borne]:
        """What others have put on each link, (reference, ifindex): routes, neighbours, qdiscs, links on top of it.

        What is lost when the link is deleted, and part of it when the link is down. Raises NetnsNotFound, NetlinkError.
        """
        from .borne import read_borne  # as above

        return read_borne(self._places, links)

    def stats(self, name: str, netns: NetnsRef = "") -> Stats:
        """The 64-bit counters of a link. Raises LinkNotFound, NetnsNotFound."""
        check_lookup_name(name)
        with self._places() as places:
            return read_stats(places, places(netns), name, netns)

    @overload
    def stats_many(
        self, items: Iterable[tuple[str, NetnsRef]], *, missing_ok: Literal[False] = False
    ) -> list[Sample]: ...

    @overload
    def stats_many(self, items: Iterable[tuple[str, NetnsRef]], *, missing_ok: bool) -> list[Sample | None]: ...

    def stats_many(
        self, items: Iterable[tuple[str, NetnsRef]], *, missing_ok: bool = False
    ) -> list[Sample] | list[Sample | None]:
        """The counters of each (name, netns), in order, with the time and which link it is: two make rates.

        Names are looked up anew, so that a link that was made again is seen to be another (:mod:`vethlib.rates`).
        Raises LinkNotFound, NetnsNotFound for the first that is not there, which is the error's ``item``; with
        `missing_ok` its place in the list is None instead.
        """
        from .counting import count_many  # as survey, for those who ask

        items = list(items)
        _refuse_bare_names(items)
        for name, _ in items:
            check_lookup_name(name)
        return count_many(self._places, items, missing_ok=missing_ok)

    def stats_in(self, refs: Iterable[str]) -> dict[str, list[Sample] | VethError]:
        """The counters of every link in many namespaces, by reference: one dump each, 12 µs a link.

        A reference that leads nowhere, or that could not be read, is not an error: it has what would be raised.
        """
        from .counting import count_in  # as above

        return count_in(self._places, refs)


def _refuse_bare_names(items: Iterable[object]) -> None:
    """A name alone would be taken apart into its letters: "ab" into the link a of the namespace b."""
    for item in items:
        if isinstance(item, str):
            raise InvalidValue("items", item, f"a link is a name and a namespace: write ({item!r}, '') for home")
