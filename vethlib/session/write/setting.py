"""Changing one setting of a link by a single message, which the kernel carries out or refuses: nothing to be undone.

The message has the name of the link, and the question for its new state is in the same datagram. With an ifindex that
the link must have, the link is looked up first, because a message with both would rename the link.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Any

from vethlib._nl.link import get_link, parse_link, set_attribute
from vethlib.endfields.checks import IPV6_MIN_MTU
from vethlib.endfields.table import FIELDS
from vethlib.links import Link, describe
from vethlib.session.core.namespaces import Namespaces
from vethlib.session.core.refusal import refusal
from vethlib.session.read.reading import addresses_of, find, read_addresses, to_link
from vethlib.session.read.target import Target

__all__ = ["Setting", "carry_out", "only_setting"]

Setting = tuple[str, bytes]
"""A setting in words, and as the attribute of a message."""


def only_setting(given: Mapping[str, Any]) -> Setting | None:
    """Return the setting that is given; None if there is not just one, or if the change takes more than a message."""
    if len(given) != 1:
        return None
    ((name, value),) = given.items()
    # Below the minimum of IPv6, the kernel removes addresses.
    if name == "mtu" and value < IPV6_MIN_MTU:
        return None
    field = FIELDS[name]
    return None if field.attribute is None else (field.describe(value), field.attribute(value))


def carry_out(namespaces: Namespaces, target: Target, setting: Setting) -> Link:
    """Change the setting, and return the link as changed. Raises LinkNotFound, NetlinkError.

    If it is interrupted, the change has been made or not.
    """
    what, attribute = setting
    place = target.place
    index, name = 0, os.fsencode(target.name)
    if target.ifindex is not None:
        index = find(namespaces, target).ifindex
        target.check_ifindex(index)
        name = b""
    changed, answer = namespaces.change_and_ask(place, set_attribute(index, name, attribute), get_link(index, name))
    if changed.errno or answer.errno:
        named = target.requesting(f"set {describe(target.name, target.netns)}")
        if changed.errno not in (0, errno.ENODEV):
            raise refusal(changed, f"{named.what} {what}", target.netns)
        raise named.not_found(changed if changed.errno else answer)
    message = target.read(answer, parse_link)
    namespaces.caches.learn([(place.identity, message)])
    return to_link(message, target.netns, addresses_of(read_addresses(namespaces, place, message.ifindex)))
