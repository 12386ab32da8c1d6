"""Moving one link to another namespace, and renaming it by the way: it is moved completely, or stays as it is."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from functools import partial

from vethlib._nl.batch import Outcome
from vethlib._nl.link import LinkMessage, get_link, set_link, set_master
from vethlib.endfields.checks import IPV6_MIN_MTU
from vethlib.endfields.table import LATE, MASTER
from vethlib.errors import InvalidValue, LinkExists, NetlinkError, NotPermitted, not_permitted
from vethlib.links import Link, NetnsRef
from vethlib.session.core.ipv6 import switch_ipv6
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.core.refusal import refusal
from vethlib.session.core.settings import read_all, restore_all
from vethlib.session.core.undo import note, undo_all
from vethlib.session.read.dying import Wanted, are_dying, holders
from vethlib.session.read.further import read_further
from vethlib.session.read.reading import addresses_of, find, find_known, read_addresses, read_link
from vethlib.session.read.target import Target

from .change import Change, change
from .restoring.addresses import restore_addresses
from .restoring.late import LateFields

__all__ = ["move"]


def move(namespaces: Namespaces, target: Target, destination: OpenNetns, to: NetnsRef, name: str | None = None) -> Link:
    """Move a link, and return it as it is there: down, without addresses, with another ifindex if its own was taken.

    With `name`, it has that name there.
    """
    before = find_known(namespaces, target)
    target.check_ifindex(before.ifindex)
    renamed = name is not None and name != before.name
    if target.place is not destination:
        _check_reach(namespaces, destination, target.what, to)
        if renamed:
            _move_renamed(namespaces, target, before, destination, to, name)  # type: ignore[arg-type]
        else:
            request = set_link(before.ifindex, netns_fd=destination.fd)
            (outcome,) = namespaces.exchange(target.place, [request])
            if outcome.errno:
                raise _not_moved(namespaces, before.name, before, target, destination, outcome, to)
    elif renamed:
        return change(namespaces, target, Change(new_name=name))
    return read_link(namespaces, Target(destination, name or before.name, to, target.what))


def _move_renamed(
    namespaces: Namespaces, target: Target, before: LinkMessage, destination: OpenNetns, to: NetnsRef, name: str
) -> None:
    """Move a link and rename it in one message, or leave it where it is, as it is.

    The kernel looks at the new name before the move only if the old one is taken there, and otherwise after it
    (do_setlink). So the name is looked up first; if another program takes it just then, the link is brought back.
    """
    if name in before.altnames:
        raise InvalidValue("name", name, "the link has it as an alternative name: remove that first (altnames=)")
    if links := holders(namespaces, [(destination, name)]):
        raise _taken(namespaces, target, destination, Outcome(errno.EEXIST, "", ()), to, links)
    losses = _Losses(namespaces, target, before)
    request = set_link(before.ifindex, netns_fd=destination.fd, name=os.fsencode(name))
    (outcome,) = namespaces.exchange(target.place, [request])
    if outcome.errno:
        failures: list[str] = []
        back: Callable[[], None] = partial(_bring_back, namespaces, target, before, destination, name)
        steps = [back, *losses.steps()]
        undo_all((step, lambda failure: failures.append(str(failure))) for step in steps)
        error = _not_moved(namespaces, name, before, target, destination, outcome, to)
        for failure in failures:
            note(error, failure)
        raise error


def _bring_back(namespaces: Namespaces, target: Target, before: LinkMessage, destination: OpenNetns, name: str) -> None:
    """Bring a link back that was moved, and not renamed unless the answer was lost; do nothing if it has stayed."""
    (here,) = namespaces.exchange(target.place, [get_link(before.ifindex)])
    if here.errno != errno.ENODEV:
        return
    there = holders(namespaces, [(destination, before.name), (destination, name)]).values()
    moved = [link.ifindex for link in there if _is_it(link, before)]
    if not moved:
        raise target.not_found(here)
    request = set_link(moved[0], netns_fd=target.place.fd, new_index=before.ifindex, name=os.fsencode(before.name))
    (outcome,) = namespaces.exchange(destination, [request])
    if outcome.errno:
        raise refusal(outcome, f"{target.what}: bring it back", target.netns)


def _is_it(link: LinkMessage, before: LinkMessage) -> bool:
    return link.mac == before.mac and link.kind == before.kind


class _Losses:
    """What the kernel removes from a link that is moved, as it was before, to be restored if the link is brought back.

    Not restored are settings of a bridge's port, qdiscs, and stacked links.
    """

    def __init__(self, namespaces: Namespaces, target: Target, before: LinkMessage) -> None:
        self._namespaces = namespaces
        self._target = target.renamed(before.name)
        self._before = before
        place, index = target.place, before.ifindex
        self._master = read_further(namespaces, place, before, {MASTER: None})[MASTER]
        self._settings = read_all(place, before.name)
        self._addresses = addresses_of(read_addresses(namespaces, place, index))
        self._late = LateFields(namespaces, self._target, index)
        self._late.read(LATE)

    def steps(self) -> Iterator[Callable[[], None]]:
        """Yield the steps that restore it when the link is back; none needs the success of another."""
        yield self._switch_ipv6
        yield partial(restore_all, self._namespaces, self._target.place, self._before.name, self._settings)
        yield self._attach_and_set_up
        yield self._restore_addresses
        yield from (partial(self._late.restore, name) for name in LATE)

    def _switch_ipv6(self) -> None:
        if self._before.mtu >= IPV6_MIN_MTU:
            wanted = {self._target.place: {self._before.name: self._before.ipv6}}
            for error in switch_ipv6(wanted).values():
                raise error

    def _attach_and_set_up(self) -> None:
        index = find(self._namespaces, self._target).ifindex
        requests = [set_master(index, self._master.ifindex)] if self._master else []
        requests += [set_link(index, up=True)] if self._before.up else []
        for outcome in self._namespaces.exchange(self._target.place, requests) if requests else ():
            if outcome.errno:
                raise refusal(outcome, f"{self._target.what}: restore it", self._target.netns)

    def _restore_addresses(self) -> None:
        index = find(self._namespaces, self._target).ifindex
        restore_addresses(self._namespaces, self._target, index, self._addresses)


def _check_reach(namespaces: Namespaces, destination: OpenNetns, request: str, to: NetnsRef) -> None:
    """Raise NotPermitted if the link could not be read in the namespace that it is to be moved to; it stays then."""
    try:
        namespaces.socket(destination)
    except NotPermitted as error:
        says = "moving it needs CAP_NET_ADMIN, and reading it there CAP_SYS_ADMIN, to enter the namespace"
        message = f"{request}: {says}"
        number, netns = error.errno or errno.EPERM, str(to or "")
        raise not_permitted(message, error.capability, errno=number, request=request, netns=netns) from error


def _not_moved(
    namespaces: Namespaces,
    name: str,
    moved: LinkMessage,
    target: Target,
    destination: OpenNetns,
    outcome: Outcome,
    to: NetnsRef,
) -> NetlinkError:
    """Return the error for a refused move: LinkExists, with the names of the link that are taken there, or another."""
    # Older kernels (5.10) say EINVAL for a name that is taken: they try "" instead (dev_change_net_namespace). Others
    # mean that the link must not leave its namespace, which is never so for a veth.
    unclear = outcome.errno == errno.EINVAL and moved.kind == "veth"
    if outcome.errno != errno.EEXIST and not unclear:
        return target.refusal(outcome)
    found = holders(namespaces, [(destination, taken) for taken in (name, *moved.altnames)])
    links = {wanted: link for wanted, link in found.items() if not _is_it(link, moved)}  # it may still be there
    return (
        target.refusal(outcome)
        if unclear and not links
        else _taken(namespaces, target, destination, outcome, to, links)
    )


def _taken(
    namespaces: Namespaces,
    target: Target,
    destination: OpenNetns,
    outcome: Outcome,
    to: NetnsRef,
    links: dict[Wanted, LinkMessage],
) -> NetlinkError:
    """Return LinkExists for names of the link that `links` have in the destination."""
    taken = " and ".join(repr(name) for _, name in links) or "one of its names"
    outcome = outcome._replace(errno=errno.EEXIST)
    error = refusal(outcome, target.what, to, says=f"{taken} already exists in {destination}")
    if isinstance(error, LinkExists):
        error.dying = are_dying(namespaces, links)
    return error
