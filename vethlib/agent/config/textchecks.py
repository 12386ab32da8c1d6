"""Checks of the text in a configuration, each with the name of its field."""

from __future__ import annotations

import re

from vethlib.errors import InvalidValue
from vethlib.text import has_controls

__all__ = ["check_description", "check_text", "check_word"]

_NOT_TEXT = re.compile("[\0\ud800-\udfff]")


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
