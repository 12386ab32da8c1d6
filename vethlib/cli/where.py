"""LINK[@NETNS], as the command line writes a link and where it is."""

from __future__ import annotations

from vethlib import ns
from vethlib.errors import InvalidValue

__all__ = ["ref_text", "split"]


def split(text: str, field: str = "link") -> tuple[str, str]:
    """The name and the namespace reference of "veth1@ns1". Raises InvalidValue."""
    name, _, ref = text.partition("@")
    if not name:
        raise InvalidValue(field, text, "write NAME, or NAME@NETNS as in veth1@ns1")
    return name, str(ns.parse(ref))


def ref_text(ref: object) -> str:
    """A reference for people: a named namespace by its bare name, home in words."""
    return str(ref or "home").removeprefix("netns:")
