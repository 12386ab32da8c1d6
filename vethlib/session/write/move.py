"""Move one link to another namespace, perhaps with another name: it is moved completely, or stays as it is."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final

from vethlib._nl.batch import Outcome
from vethlib._nl.link import LinkMessage, set_link
from vethlib._nl.wire import encoded
from vethlib.endfields.checks import IPV6_MIN_MTU, OF_THE_NAMESPACE
from vethlib.endfields.table import LATE, MASTER, return_to_master
from vethlib.errors import InvalidValue, LinkExists, NetlinkError, NotPermitted, not_permitted
from vethlib.links import Link, NetnsRef
from vethlib.session.core.ipv6 import switch_ipv6
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.core.refusal import refusal
from vethlib.session.core.settings import read_all, restore_all
from vethlib.session.core.undo import note, undo_all
from vethlib.session.read.dying import Wanted, are_dying, holders
from vethlib.session.read.further import read_further
from vethlib.session.read.reading import find, read_addresses, table, with_addresses
from vethlib.session.read.target import Target

from .change import Change, change
from .restoring.addresses import restore_addresses
from .restoring.late import ELSEWHERE, LateFields

__all__ = ["move"]

_GONE: Final = Outcome(errno.ENODEV)


def move(namespaces: Namespaces, target: Target, destination: OpenNetns, to: NetnsRef, name: str | None = None) -> Link:
    """Move a link, and return it as it is there: down, without addresses, with another ifindex if its own was taken.

    With `name`, it has that name there.
    """
    # Recognising the link there takes its peer, for which a cache receives no events; bringing it back takes IPv6, too.
    before = find(namespaces, target)
    target.check(namespaces, before)
    renamed = name is not None and name != before.name
    there = Target(destination, name or before.name, to, target.what)
    if target.place is destination:
        renaming = Change(new_name=name)
        return change(namespaces, target, renaming) if renamed else with_addresses(namespaces, there, before)
    _check_reach(namespaces, there)
    if renamed:
        _move_renamed(namespaces, target, there, before)
    else:
        request = set_link(before.ifindex, netns_fd=destination.fd)
        (outcome,) = namespaces.exchange(target.place, [request])
        if outcome.errno:
            raise _not_moved(namespaces, target, there, before, outcome)
    return with_addresses(namespaces, there, _arrived(namespaces, there, before))


def _arrived(namespaces: Namespaces, there: Target, before: LinkMessage) -> LinkMessage:
    """Return a link that was moved; another program may have changed it there at once, as udev renames new links."""
    link = _moved(namespaces, there.place, before, [there.name])
    if link is None:
        link = holders(namespaces, [(there.place, there.name)]).get((there.place, there.name))
        if link is None or (link.kind, link.link) != (before.kind, before.link):
            says = "it was moved, but cannot be found there: another program has changed, moved or deleted it"
            raise there.refusal(_GONE, says=says, cls=NetlinkError)
    namespaces.caches.learn([(there.place.identity, link)])
    return link


def _moved(
    namespaces: Namespaces, destination: OpenNetns, before: LinkMessage, names: Iterable[str]
) -> LinkMessage | None:
    """Return the link in the destination, found by one of the names, or by what it keeps; None if it is not there."""
    for link in holders(namespaces, [(destination, name) for name in names]).values():
        if _is_moved(link, before):
            return link
    alike = [link for link in table(namespaces, destination) if _is_moved(link, before)]
    if len(alike) > 1:  # many links of some kinds, such as tun, look alike
        alike = [link for link in alike if link.ifindex == before.ifindex]
    return alike[0] if alike else None


def _move_renamed(namespaces: Namespaces, target: Target, there: Target, before: LinkMessage) -> None:
    """Move a link and rename it in one message, or leave it where it is, as it is.

    The kernel checks the new name before the move only if the old name is taken there, and otherwise after it
    (do_setlink). So the name is looked up first; if another program takes it just then, the link is brought back.
    """
    name = there.name
    if name in before.altnames:
        raise InvalidValue("name", name, "the link has it as an alternative name: remove that first (altnames=)")
    if links := holders(namespaces, [(there.place, name)]):
        raise _taken(namespaces, there, Outcome(errno.EEXIST), links)
    way_back = _WayBack(namespaces, target, there, before)
    losses = _Losses(namespaces, target, before)
    request = set_link(before.ifindex, netns_fd=there.place.fd, name=encoded(name))
    (outcome,) = namespaces.exchange(target.place, [request])
    if outcome.errno:
        failures: list[str] = []
        steps = _back_and_as_it_was(way_back, losses)
        undo_all((step, lambda failure: failures.append(str(failure))) for step in steps)
        error = _not_moved(namespaces, target, there, before, outcome, way_back.left_there)
        for failure in failures:
            note(error, failure)
        raise error


class _WayBack:
    """The way back for a link that was moved, but not renamed (unless the answer was lost).

    `left_there` is its ifindex in the destination while it is there, and `is_back` tells whether it has returned or
    stayed.
    """

    def __init__(self, namespaces: Namespaces, target: Target, there: Target, before: LinkMessage) -> None:
        self._namespaces = namespaces
        self._target = target
        self._there = there
        self._before = before
        self.left_there: int | None = None
        self.is_back = False

    def bring_back(self) -> None:
        """Bring the link back; do nothing if it has stayed. Raises NetlinkError."""
        if not self._is_here():
            self._move_back()
            if not self._is_here():
                raise self._target.not_found(_GONE)
        self.is_back = True

    def _is_here(self) -> bool:
        """Return whether the link has its former name in its former namespace."""
        before = self._before
        found = holders(self._namespaces, [(self._target.place, before.name)]).values()
        return any(link.name == before.name and _is_like(link, before) for link in found)

    def _move_back(self) -> None:
        destination = self._there.place
        moved = _moved(self._namespaces, destination, self._before, (self._before.name, self._there.name))
        if moved is None:
            raise self._target.not_found(_GONE)
        self.left_there = moved.ifindex
        fd, name = self._target.place.fd, encoded(self._before.name)
        request = set_link(moved.ifindex, netns_fd=fd, new_index=self._before.ifindex, name=name)
        (outcome,) = self._namespaces.exchange(destination, [request])
        if outcome.errno:
            raise refusal(outcome, f"{self._target.what}: bring it back", self._target.netns)
        self.left_there = None


def _back_and_as_it_was(way_back: _WayBack, losses: _Losses) -> Iterator[Callable[[], None]]:
    """Yield the steps of undoing. Losses are restored by name, which may be another link's if this one is not back."""
    yield way_back.bring_back
    if way_back.is_back:
        yield from losses.steps()


def _is_like(link: LinkMessage, before: LinkMessage) -> bool:
    return (link.mac, link.kind, link.link) == (before.mac, before.kind, before.link)


def _is_moved(link: LinkMessage, before: LinkMessage) -> bool:
    """Return whether a link in the destination is the one that was moved: its peer has stayed where it was."""
    # The peer cannot be in the same namespace as the link before and after the move.
    return _is_like(link, before) and (link.kind != "veth" or (link.link_netnsid, before.link_netnsid) != (None, None))


class _Losses:
    """What the kernel removes from a link that is moved, as it was before; restored if the link is brought back.

    Not restored are VLANs and forwarding entries of a bridge port, next hop objects and the routes that use them, the
    token, settings of neighbours (net.ipv4.neigh, net.ipv6.neigh), qdiscs, and stacked links.
    """

    def __init__(self, namespaces: Namespaces, target: Target, before: LinkMessage) -> None:
        self._namespaces = namespaces
        self._target = target.renamed(before.name)
        self._before = before
        place, index = target.place, before.ifindex
        self._master = read_further(namespaces, place, before, {MASTER: None})[MASTER]
        self._has_settings = before.name not in OF_THE_NAMESPACE  # those under such a name belong to no link
        self._settings = read_all(place, before.name) if self._has_settings else ()
        self._addresses = read_addresses(namespaces, place, index)
        self._late = LateFields(namespaces, self._target, before)
        self._late.read(LATE)
        self._late.read_elsewhere(self._addresses, 4, 6)

    def steps(self) -> Iterator[Callable[[], None]]:
        """Yield the steps that restore it when the link is back; none depends on the success of another."""
        if self._has_settings:
            yield self._switch_ipv6
            yield self._restore_settings
        yield self._attach_and_set_up
        yield self._restore_addresses
        yield from (partial(self._late.restore, name) for name in (*LATE, ELSEWHERE))

    def _switch_ipv6(self) -> None:
        now = find(self._namespaces, self._target)
        if now.ipv6 != self._before.ipv6 and self._before.mtu >= IPV6_MIN_MTU:
            wanted = {self._target.place: {now.ifindex: self._before.ipv6}}
            for error in switch_ipv6(self._namespaces, wanted).values():
                raise error

    def _restore_settings(self) -> None:
        index = find(self._namespaces, self._target).ifindex
        restore_all(self._namespaces, self._target.place, index, self._settings)

    def _attach_and_set_up(self) -> None:
        index = find(self._namespaces, self._target).ifindex
        requests = [*return_to_master(index, self._master)] if self._master else []
        requests += [set_link(index, up=True)] if self._before.up else []
        for outcome in self._namespaces.exchange(self._target.place, requests) if requests else ():
            if outcome.errno:
                raise refusal(outcome, f"{self._target.what}: restore it", self._target.netns)

    def _restore_addresses(self) -> None:
        index = find(self._namespaces, self._target).ifindex
        restore_addresses(self._namespaces, self._target, index, self._addresses)


def _check_reach(namespaces: Namespaces, there: Target) -> None:
    """Raise NotPermitted, and leave the link in place, if it could not be read in the namespace it is to move to."""
    try:
        namespaces.socket(there.place)
    except NotPermitted as error:
        says = "moving it needs CAP_NET_ADMIN, and reading it there CAP_SYS_ADMIN, to enter the namespace"
        message = f"{there.what}: {says}"
        number, netns = error.errno or errno.EPERM, str(there.netns or "")
        raise not_permitted(message, error.capability, errno=number, request=there.what, netns=netns) from error


def _not_moved(
    namespaces: Namespaces,
    target: Target,
    there: Target,
    before: LinkMessage,
    outcome: Outcome,
    left_there: int | None = None,
) -> NetlinkError:
    """Return the error for a refused move: LinkExists with those names of the link that are taken there, or another.

    `left_there` is the ifindex of the link itself in the destination, if it could not be brought back.
    """
    # Older kernels (5.10) return EINVAL for a name that is taken: they try "" instead (dev_change_net_namespace). In
    # other cases, it means that the link must not leave its namespace, which never applies to a veth.
    unclear = outcome.errno == errno.EINVAL and before.kind == "veth"
    if outcome.errno != errno.EEXIST and not unclear:
        return target.refusal(outcome)
    found = holders(namespaces, [(there.place, taken) for taken in (there.name, *before.altnames)])
    links = {wanted: link for wanted, link in found.items() if link.ifindex != left_there}
    return target.refusal(outcome) if unclear and not links else _taken(namespaces, there, outcome, links)


def _taken(namespaces: Namespaces, there: Target, outcome: Outcome, links: dict[Wanted, LinkMessage]) -> NetlinkError:
    """Return LinkExists for names of the link that belong to `links` in the destination."""
    taken = " and ".join(repr(name) for _, name in links) or "one of its names"
    error = there.refusal(outcome._replace(errno=errno.EEXIST), says=f"{taken} already exists in {there.place}")
    if isinstance(error, LinkExists):
        error.dying = are_dying(namespaces, links)
    return error
