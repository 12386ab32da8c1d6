"""Checks of the text in a configuration, each with the name of its field."""

from __future__ import annotations

import re

from vethlib.errors import InvalidValue
from vethlib.text import has_controls

__all__ = ["NAME_MAX", "check_description", "check_interface_name", "check_text", "check_word"]

NAME_MAX = 63  # four times the length of a link name, and three names still fit into an alias

_NOT_TEXT = re.compile("[\0\ud800-\udfff]")
_NOT_IN_NAME = re.compile("[/:% ]")


def check_text(text: str, where: str) -> str:
    """Return `text` if it is a string that can be stored as UTF-8."""
    if not isinstance(text, str):
        raise InvalidValue(where, text, "must be a string")
    # Lone surrogates (an undecodable file name, or \ud800 in JSON) cannot be sent or stored as UTF-8.
    if _NOT_TEXT.search(text):
        raise InvalidValue(where, text, "must not contain NUL or a lone surrogate")
    return text


def check_word(text: str, where: str) -> str:
    """Return `text` if a terminal would interpret none of its characters."""
    if has_controls(check_text(text, where)):
        raise InvalidValue(where, text, "must not contain control or text-direction characters")
    return text


def check_description(text: str, where: str) -> str:
    """Return `text` if a terminal would interpret none of its characters; it may have several lines."""
    check_word(text.replace("\n", " ").replace("\t", " ") if isinstance(text, str) else text, where)
    return text


def check_interface_name(name: str, where: str = "name") -> str:
    """Return `name` if it can name an interface: as a link name, but of up to 63 bytes.

    It may be longer than the 15 bytes of a link name, because it only has to be unique and to fit into the alias.
    """
    check_text(name, where)
    if not 1 <= len(name.encode()) <= NAME_MAX:
        cure = f"must have 1 to {NAME_MAX} bytes, and has {len(name.encode())}"
        raise InvalidValue(where, name, cure)
    if not name.isprintable() or _NOT_IN_NAME.search(name):
        raise InvalidValue(where, name, "must not contain '/', ':', '%', a space or a control character")
    if name in (".", ".."):
        raise InvalidValue(where, name, "must not be '.' or '..'")
    return name
