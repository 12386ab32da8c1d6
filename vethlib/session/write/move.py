"""Moving one link to another namespace, and renaming it by the way: it is moved completely, or stays as it is."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from functools import partial

from vethlib._nl.batch import Outcome
from vethlib._nl.link import LinkMessage, get_link, set_link
from vethlib.addresses import Address
from vethlib.endfields.checks import IPV6_MIN_MTU
from vethlib.errors import LinkExists, NetlinkError, NotPermitted, not_permitted
from vethlib.links import Link, NetnsRef
from vethlib.session.core.ipv6 import switch_ipv6
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.core.refusal import refusal
from vethlib.session.core.undo import note, undo_all
from vethlib.session.read.dying import are_dying, holders
from vethlib.session.read.reading import addresses_of, find, find_known, read_addresses, read_link
from vethlib.session.read.target import Target

from .change import Change, change
from .restoring.addresses import restore_addresses

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
    taken = Outcome(errno.EEXIST, "", ())
    if holders(namespaces, [(destination, name)]):
        raise _not_moved(namespaces, name, before, target, destination, taken, to)
    addresses = addresses_of(read_addresses(namespaces, target.place, before.ifindex))
    request = set_link(before.ifindex, netns_fd=destination.fd, name=os.fsencode(name))
    (outcome,) = namespaces.exchange(target.place, [request])
    if outcome.errno:
        error = _not_moved(namespaces, name, before, target, destination, outcome, to)
        steps = (
            partial(_bring_back, namespaces, target, before, destination, name),
            partial(_give_back, namespaces, target, before, addresses),
        )
        undo_all((step, lambda failure: note(error, str(failure))) for step in steps)
        raise error


def _bring_back(namespaces: Namespaces, target: Target, before: LinkMessage, destination: OpenNetns, name: str) -> None:
    """Bring a link back that was moved, and not renamed unless the answer was lost; do nothing if it has stayed."""
    (here,) = namespaces.exchange(target.place, [get_link(before.ifindex)])
    if here.errno != errno.ENODEV:
        return
    there = holders(namespaces, [(destination, before.name), (destination, name)]).values()
    moved = [link.ifindex for link in there if link.mac == before.mac]
    if not moved:
        raise target.not_found(here)
    request = set_link(moved[0], netns_fd=target.place.fd, new_index=before.ifindex, name=os.fsencode(before.name))
    (outcome,) = namespaces.exchange(destination, [request])
    if outcome.errno:
        raise refusal(outcome, f"{target.what}: bring it back", target.netns)


def _give_back(namespaces: Namespaces, target: Target, before: LinkMessage, addresses: Sequence[Address]) -> None:
    """Restore what the kernel has removed from a link because it was moved."""
    index = find(namespaces, target.renamed(before.name)).ifindex
    if not before.ipv6 and before.mtu >= IPV6_MIN_MTU:
        for error in switch_ipv6({target.place: {before.name: False}}).values():
            raise error
    if before.up:
        namespaces.exchange(target.place, [set_link(index, up=True)])
    restore_addresses(namespaces, target, index, addresses)


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
    links = holders(namespaces, [(destination, taken) for taken in (name, *moved.altnames)])
    if unclear and not links:
        return target.refusal(outcome)
    taken = " and ".join(repr(name) for _, name in links) or "one of its names"
    outcome = outcome._replace(errno=errno.EEXIST)
    error = refusal(outcome, target.what, to, says=f"{taken} already exists in {destination}")
    if isinstance(error, LinkExists):
        error.dying = are_dying(namespaces, links)
    return error
