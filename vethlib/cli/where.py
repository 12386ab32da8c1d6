"""LINK[@NETNS], as the command line writes a link and where it is."""

from __future__ import annotations

from vethlib import ns
from vethlib.errors import InvalidValue

__all__ = ["netns", "ref_text", "split"]


def split(text: str, field: str = "LINK") -> tuple[str, str]:
    """The name and the namespace reference of "veth1@ns1". Raises InvalidValue."""
    name, _, ref = text.partition("@")
    if not name:
        raise InvalidValue(field, text, "write NAME, or NAME@NETNS as in veth1@ns1")
    return name, netns(ref, field)


def netns(text: str, field: str) -> str:
    """The canonical reference of NETNS. Raises InvalidValue."""
    try:
        return str(ns.parse(text))
    except InvalidValue as error:
        raise InvalidValue(field, error.value, error.hint) from None


def ref_text(ref: str) -> str:
    """A reference for people: a named namespace by its bare name, home in words."""
    if ref == "netns:home":
        return ref
    return ref.removeprefix("netns:") or "home"
