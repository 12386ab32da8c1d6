"""Values as an operator gives them: JSON texts, what name is in them, and whether two of them mean the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vethlib.agent.jsontext import decode
from vethlib.agent.model import check_interface_name
from vethlib.agent.northbound import read_value
from vethlib.errors import InvalidValue

__all__ = ["check_names", "means", "name_in"]


def name_in(value: Any) -> str:
    """The name in a decoded value, "" if there is none."""
    name = value.get("name") if isinstance(value, dict) else None
    return name if isinstance(name, str) else ""


def check_names(texts: Mapping[str, str]) -> None:
    """Check that each of these is the text of an object with the name that it is under. Raises InvalidValue."""
    for name, text in texts.items():
        check_interface_name(name)
        if (found := name_in(decode(text))) != name:
            raise InvalidValue("name", found, f"the key is for {name!r}: name and key have to agree")


def means(value: Any, text: str) -> bool:
    """Whether a decoded value means what `text` does."""
    new = decode(text)
    interface = read_value(new).interface
    return bool(value == new) if interface is None else read_value(value).interface == interface
