"""Change one setting with a single message per link, which the kernel carries out or refuses; nothing needs undoing.

The message has the name of the link, and a request for its new state is in the same datagram. If the link must have a
certain ifindex, it is looked up first, because a message with both would rename the link. Before Linux 5.19, the kernel
finds no link by a name of more than 15 bytes in such a message (rtnl_setlink), so that link is looked up first, too.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from vethlib._nl.batch import LOST, Outcome
from vethlib._nl.link import get_link, get_named, index_of, parse_link, set_attribute
from vethlib._nl.wire import encoded
from vethlib.endfields.checks import IPV6_MIN_MTU
from vethlib.endfields.table import FIELDS
from vethlib.errors import NetlinkError, VethError, is_exhaustion
from vethlib.linkref import Located
from vethlib.links import Link, describe
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.core.refusal import copy_for, refusal
from vethlib.session.core.slabs import by_reference, slabs
from vethlib.session.read.reading import find, read_addresses, to_link
from vethlib.session.read.target import Target, read_body

__all__ = ["Setting", "carry_out", "carry_out_all", "only_setting"]

_LONGEST_NAME: Final = 15
"""The longest name in IFLA_IFNAME, in bytes; a longer name is an alternative name."""


class Setting(NamedTuple):
    """A setting, described in words, and as part of a message: up or down, or an attribute."""

    what: str
    attribute: bytes = b""
    up: bool | None = None

    def request(self, index: int, name: bytes) -> bytes:
        """Return the message for a link, given by its ifindex, or else by its name."""
        return set_attribute(index, name, self.attribute, self.up)


def only_setting(given: Mapping[str, Any], *, up: bool | None = None) -> Setting | None:
    """Return the only setting that is given; None if there are several, or if changing it takes more than a message."""
    if up is not None:
        return None if given else Setting("up" if up else "down", up=up)
    if len(given) != 1:
        return None
    ((name, value),) = given.items()
    # With an MTU below the minimum of IPv6, the kernel removes addresses; with another MAC, neighbours.
    if (name == "mtu" and value < IPV6_MIN_MTU) or name == "mac":
        return None
    field = FIELDS[name]
    return None if field.attribute is None else Setting(field.describe(value), field.attribute(value))


def carry_out(namespaces: Namespaces, target: Target, setting: Setting) -> Link:
    """Change the setting, and return the link as changed. Raises LinkNotFound, NetlinkError.

    If it is interrupted, the change may or may not have been made.
    """
    place = target.place
    index, name = 0, encoded(target.name)
    if target.ifindex is not None:
        link = find(namespaces, target)
        target.check(namespaces, link)
        index, name = link.ifindex, b""
    change, question = setting.request(index, name), get_link(index, name)
    changed, answer = namespaces.change_and_ask(place, change, question)
    if _may_be_unknown(changed, name):
        index = find(namespaces, _requesting(target)).ifindex
        change, question = setting.request(index, b""), get_link(index)
        changed, answer = namespaces.change_and_ask(place, change, question)
    if changed is LOST:  # whether it was made or not, it can be made again
        changed, answer = namespaces.change_and_ask(place, change, question)
    if changed.errno:
        raise _refused(target, changed, setting)
    if answer.errno:
        raise _requesting(target).not_found(answer)
    message = target.read(answer, parse_link)
    namespaces.caches.learn([(place.identity, message)])
    ifaddrs = read_addresses(namespaces, place, message.ifindex)
    return to_link(message, target.netns, ifaddrs, cookie=place.cookie)


def _may_be_unknown(outcome: Outcome, name: bytes) -> bool:
    """Return whether there may be a link of that name although the kernel has not found it by that name.

    Before Linux 5.5, a change by an alternative name is invalid; a look-up shows whether there is such a link.
    """
    return outcome.errno in (errno.ENODEV, errno.EINVAL) and len(name) > _LONGEST_NAME


def _requesting(target: Target) -> Target:
    return target.requesting(f"set {describe(target.name, target.netns)}")


def _refused(target: Target, outcome: Outcome, setting: Setting) -> NetlinkError:
    named = _requesting(target)
    if outcome.errno == errno.ENODEV:
        return named.not_found(outcome)
    return refusal(outcome, f"{named.what} {setting.what}", target.netns)


def carry_out_all(
    open_namespaces: Callable[[], Namespaces], items: Sequence[Located], setting: Setting
) -> dict[int, VethError]:
    """Change the setting of many links, in one exchange per namespace; return the errors, by position."""
    groups = by_reference(netns for _, netns, _, _ in items)
    failed: dict[int, VethError] = {}
    for slab in slabs(groups):
        with open_namespaces() as namespaces:
            opened: list[tuple[OpenNetns, list[int]]] = []
            refused: dict[int, VethError] = {}
            for positions in slab:
                try:
                    opened.append((namespaces(items[positions[0]][1]), positions))
                except VethError as error:
                    slab.short = slab.short or is_exhaustion(error)
                    refused |= {position: copy_for(error, None) for position in positions}
            slab.short = namespaces.lacks_sockets(place for place, _ in opened) or slab.short
            if slab.is_repeated:
                continue
            failed |= refused
            for place, positions in opened:
                try:
                    failed |= _carry_out_in(namespaces, place, {at: items[at] for at in positions}, setting)
                except VethError as error:
                    failed |= {position: copy_for(error, None) for position in positions}
    return dict(sorted(failed.items()))


def _carry_out_in(
    namespaces: Namespaces, place: OpenNetns, items: dict[int, Located], setting: Setting
) -> dict[int, VethError]:
    """Change the setting of links in one namespace; return the errors."""
    failed: dict[int, VethError] = {}
    requests: dict[int, bytes] = {}
    for position, (name, netns, index, seen) in items.items():
        try:
            if index is not None:
                target = Target(place, name, netns, f"set {describe(name, netns)}", index, seen=seen)
                target.check(namespaces, find(namespaces, target))
            requests[position] = setting.request(index or 0, b"" if index else encoded(name))
        except VethError as error:
            failed[position] = error
    outcomes = dict(zip(requests, namespaces.exchange(place, list(requests.values())), strict=True))
    unknown = [at for at, outcome in outcomes.items() if _may_be_unknown(outcome, encoded(items[at][0]))]
    outcomes |= _by_index(namespaces, place, {at: items[at][0] for at in unknown}, setting)
    for position, outcome in outcomes.items():
        if outcome.errno:
            name, netns, _, _ = items[position]
            failed[position] = _refused(Target(place, name, netns), outcome, setting)
    if namespaces.caches:
        questions = [get_named(items[position][0]) for position in requests]
        answers = [answer for answer in namespaces.exchange(place, questions) if not answer.errno]
        namespaces.caches.learn([(place.identity, read_body(place, answer, parse_link)) for answer in answers])
    return failed


def _by_index(namespaces: Namespaces, place: OpenNetns, names: dict[int, str], setting: Setting) -> dict[int, Outcome]:
    """Change the setting of links that the kernel finds when they are looked up; return the outcomes of all."""
    if not names:
        return {}
    found = dict(zip(names, namespaces.exchange(place, [get_named(name) for name in names.values()]), strict=True))
    indexes = {at: read_body(place, answer, index_of) for at, answer in found.items() if not answer.errno}
    requests = [setting.request(index, b"") for index in indexes.values()]
    return found | dict(zip(indexes, namespaces.exchange(place, requests), strict=True))
