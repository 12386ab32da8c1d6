"""Links and network namespaces as arguments: LINK[@NETNS], NETNS and @NETNS."""

from __future__ import annotations

import os

from vethlib import ns
from vethlib.cli.term.homelinks import is_link
from vethlib.errors import InvalidValue, LinkNotFound
from vethlib.links import check_lookup_name

__all__ = ["existing_link", "parse_link", "parse_netns", "parse_target", "suggest_netns"]


def parse_link(text: str, field: str = "LINK") -> tuple[str, str]:
    """Return the name and the namespace reference of "veth1@ns1". Raises InvalidValue."""
    name, _, ref = text.partition("@")
    if not name:
        raise InvalidValue(field, text, "must be NAME or NAME@NETNS, such as veth1@ns1")
    return check_lookup_name(name, field), parse_netns(ref, field)


def existing_link(text: str) -> tuple[str, str]:
    """Return the name and the namespace reference of an argument that names a link which should exist.

    The name of a link may have an "@". Such a link of this namespace is found by its whole name if no namespace has the
    name after the "@"; or, if one does, with another "@" at the end.
    """
    name, ref = parse_link(text)
    if ref.startswith("netns:") and not os.path.lexists(ns.parse(ref).path):
        for whole in (text, text.removesuffix("@")):
            if is_link(whole):
                return whole, ""
    return name, ref


def parse_netns(text: str, field: str) -> str:
    """Return the canonical reference of NETNS. Raises InvalidValue."""
    try:
        return str(ns.parse(text))
    except InvalidValue as error:
        raise InvalidValue(field, error.value, error.hint) from None


def suggest_netns(error: LinkNotFound, name: str, ref: str) -> None:
    """Note with the error for a missing link that a namespace has the name."""
    if not ref and name in ns.names():
        error.add_note(f"to show the namespace: @{name}")


def parse_target(text: str) -> tuple[str, str]:
    """Return the name and the namespace reference of LINK[@NETNS]; for @NETNS, the name is "". Raises InvalidValue."""
    if text.startswith("@"):
        return "", parse_netns(text[1:], "@NETNS")
    return existing_link(text)
