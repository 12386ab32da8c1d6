"""Values given by an operator, as JSON texts: the names that they contain, and whether two mean the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vethlib.agent.config.jsontext import decode
from vethlib.agent.config.northbound import name_in, read_value
from vethlib.agent.config.textchecks import check_interface_name
from vethlib.errors import InvalidValue

__all__ = ["check_names", "means", "name_in"]


def check_names(texts: Mapping[str, str]) -> None:
    """Check that each text is a JSON object that contains the name of its key. Raises InvalidValue."""
    for name, text in texts.items():
        check_interface_name(name)
        if (inner := name_in(decode(text))) != name:
            raise InvalidValue("name", inner, f"must be {name!r}, the name in the key")


def means(value: Any, text: str) -> bool:
    """Return whether a decoded value and a JSON text mean the same."""
    new = decode(text)
    interface = read_value(new).interface
    return bool(value == new) if interface is None else read_value(value).interface == interface
