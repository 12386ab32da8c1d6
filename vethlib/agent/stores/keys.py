"""The keys of interfaces in a store that many hosts share; a plain name stands for its own label's key."""

from __future__ import annotations

import re

from vethlib.agent.model import check_interface_name
from vethlib.errors import InvalidValue

__all__ = [
    "beginning_of",
    "begins",
    "key_of",
    "liveness_key",
    "name_of",
    "place_of",
    "presence_key",
    "status_key",
    "told_as",
]

_KEY = re.compile(r"/vnf-agent/([^/]*)/linux/config/v1/interface/(.*)", re.DOTALL)
_PLACE = "key:"


def key_of(label: str, name: str) -> str:
    """``/vnf-agent/LABEL/linux/config/v1/interface/NAME``."""
    return f"/vnf-agent/{label}/linux/config/v1/interface/{name}"


def status_key(label: str, name: str) -> str:
    """``/vnf-agent/LABEL/linux/status/v1/interface/NAME``: what the agent says of an interface."""
    return f"/vnf-agent/{label}/linux/status/v1/interface/{name}"


def liveness_key(label: str) -> str:
    """``/vnf-agent/LABEL/check/status/v1/agent``: there while the agent is alive."""
    return f"/vnf-agent/{label}/check/status/v1/agent"


def presence_key(label: str, agent: str) -> str:
    """``/vnf-agent/LABEL/check/status/v1/vethlib/AGENT``: there while this one of the agents of a label is alive.

    There is to be but one. Two cannot hide each other here, as they do where both write the same key.
    """
    return f"/vnf-agent/{label}/check/status/v1/vethlib/{agent}"


def name_of(key: str, label: str, field: str = "key") -> str:
    """The interface's name of a key, or of the plain name that it may be. Raises InvalidValue for another label's."""
    end = beginning_of(key, label, field)
    if "/" in end:
        raise _neither(key, label, field)
    return end


def place_of(key: str, label: str, field: str = "key") -> str:
    """As :func:`name_of`, for what is stored already: a key that no interface can have is what a store tells it as."""
    if key.startswith(_PLACE) or "/" not in key:
        return key
    name, _ = told_as(beginning_of(key, label, field).encode(errors="surrogateescape"))
    return name


def beginning_of(key: str, label: str, field: str = "key") -> str:
    """What a key, which may be a beginning of one, says of the name; or what of it is given plainly."""
    if "/" not in key:
        return key
    found = _KEY.fullmatch(key)
    if found is None:
        raise _neither(key, label, field)
    if found[1] != label:
        raise InvalidValue(field, key, f"the key is of label {found[1]}, not of {label}: give its label, or its name")
    return found[2]


def begins(name: str, beginning: str) -> bool:
    """Whether a name, or the end of the key that is told as this, begins so."""
    if name.startswith(_PLACE) and not beginning.startswith(_PLACE):
        return name.removeprefix(_PLACE).startswith(_escaped(beginning.encode(errors="surrogateescape")))
    return name.startswith(beginning)


def told_as(end: bytes) -> tuple[str, str]:
    """The name for the end of a key, and why that can be no interface's: ``key:…`` then, another one for each key."""
    try:
        return check_interface_name(end.decode()), ""
    except UnicodeDecodeError:
        problem = "the name of an interface is text in UTF-8"
    except InvalidValue as error:
        problem = error.hint
    return f"{_PLACE}{_escaped(end)}", problem


def _escaped(end: bytes) -> str:
    # Were a backslash left alone, the byte ff and the four characters of \xff would be told as the same.
    return end.replace(b"\\", rb"\\").decode(errors="backslashreplace")


def _neither(key: str, label: str, field: str) -> InvalidValue:
    return InvalidValue(field, key, f"write a name, or {key_of(label, 'NAME')}")
