"""What a key and its value mean: keys are bytes, and anybody can write anything there."""

from __future__ import annotations

from vethlib.agent.model import check_interface_name
from vethlib.agent.northbound import Parsed, read_one
from vethlib.agent.stores.keys import key_of
from vethlib.errors import InvalidValue

__all__ = ["name_at", "prefix_of", "read_key"]


def prefix_of(label: str) -> bytes:
    """With what the keys of a label's interfaces begin."""
    return key_of(label, "").encode()


def name_at(key: bytes, prefix: bytes) -> str:
    """The name under which the value of a key is told; ``key:…`` where it can be no interface's."""
    name, problem = _name(key[len(prefix) :])
    return f"key:{name}" if problem else name


def read_key(key: bytes, raw: bytes, prefix: bytes) -> tuple[str, Parsed]:
    """The name under which the value of a key is told, and the value. Its source is the key."""
    source = key.decode(errors="backslashreplace")
    name, problem = _name(key[len(prefix) :])
    if not problem:
        return name, read_one(raw, source, name=name)
    return f"key:{name}", Parsed(None, f"key:{name}", (InvalidValue("key", source, problem),), source=source)


def _name(rest: bytes) -> tuple[str, str]:
    """The end of a key as text, and why it cannot be the name of an interface; "" where it can."""
    try:
        return check_interface_name(rest.decode()), ""
    except UnicodeDecodeError:
        return rest.decode(errors="backslashreplace"), "the name of an interface is text in UTF-8"
    except InvalidValue as error:
        return rest.decode(), error.hint
