"""The keys of interfaces in a store that many hosts share; a plain name means the key below the own label."""

from __future__ import annotations

import re
from hashlib import blake2s

from vethlib.agent.config.textchecks import check_interface_name
from vethlib.errors import InvalidValue
from vethlib.text import without_controls

__all__ = [
    "PLACE",
    "beginning_of",
    "begins",
    "key_of",
    "liveness_key",
    "name_for",
    "name_of",
    "place_of",
    "presence_key",
    "status_key",
]

_KEY = re.compile(r"/vnf-agent/([^/]*)/linux/config/v1/interface/(.*)", re.DOTALL)
PLACE = "key:"
_LONGEST = 400  # bytes of an invalid key that are shown


def key_of(label: str, name: str) -> str:
    """Return ``/vnf-agent/LABEL/linux/config/v1/interface/NAME``, the key of a configuration."""
    return f"/vnf-agent/{label}/linux/config/v1/interface/{name}"


def status_key(label: str, name: str) -> str:
    """Return ``/vnf-agent/LABEL/linux/status/v1/interface/NAME``, the key of an interface's status."""
    return f"/vnf-agent/{label}/linux/status/v1/interface/{name}"


def liveness_key(label: str) -> str:
    """Return ``/vnf-agent/LABEL/check/status/v1/agent``, the key that exists while the agent is alive."""
    return f"/vnf-agent/{label}/check/status/v1/agent"


def presence_key(label: str, agent: str) -> str:
    """Return ``/vnf-agent/LABEL/check/status/v1/vethlib/AGENT``, the key that exists while this agent is alive.

    A label should have one agent only. If it has two, both have a key here, while they overwrite each other's
    :func:`liveness_key`.
    """
    return f"/vnf-agent/{label}/check/status/v1/vethlib/{agent}"


def name_of(key: str, label: str, field: str = "key") -> str:
    """Return the name in a key, or a plain name as it is. Raises InvalidValue for the key of another label."""
    name = beginning_of(key, label, field)
    if "/" in name:
        raise _neither(key, label, field)
    return name


def place_of(key: str, label: str, field: str = "key") -> str:
    """Return the name for something stored, like :func:`name_of`; an invalid key gets the name of :func:`name_for`."""
    if key.startswith(PLACE) or "/" not in key:
        return key
    name, _ = name_for(beginning_of(key, label, field).encode(errors="surrogateescape"))
    return name


def beginning_of(key: str, label: str, field: str = "key") -> str:
    """Return the part of a name that the beginning of a key has, or a plain name as it is. Raises InvalidValue."""
    if "/" not in key:
        return key
    match = _KEY.fullmatch(key)
    if match is None:
        raise _neither(key, label, field)
    if match[1] != label:
        cure = f"the key belongs to label {match[1]}, not {label}: give --label {match[1]}, or only the name"
        raise InvalidValue(field, key, cure)
    return match[2]


def begins(name: str, beginning: str) -> bool:
    """Return whether a name, or the invalid key that has this name, starts with `beginning`."""
    if name.startswith(PLACE) and not beginning.startswith(PLACE):
        return name.removeprefix(PLACE).startswith(_escaped(beginning.encode(errors="surrogateescape")))
    return name.startswith(beginning)


def name_for(end: bytes) -> tuple[str, str]:
    """Return the name for the end of a key, and "". For an invalid key: a unique ``key:…``, and the reason."""
    try:
        return check_interface_name(end.decode()), ""
    except UnicodeDecodeError:
        problem = "must be UTF-8"
    except InvalidValue as error:
        problem = error.hint
    return f"{PLACE}{_shortened(end)}", problem


def _shortened(end: bytes) -> str:
    """Return the end of a key, cut off if it is long (etcd accepts a megabyte); a hash keeps the result unique."""
    if len(end) <= _LONGEST:
        return _escaped(end)
    return f"{_escaped(end[:_LONGEST])}…{blake2s(end, digest_size=8).hexdigest()}"


def _escaped(end: bytes) -> str:
    # Without escaping backslashes, the byte ff and the four characters \xff would yield the same name.
    text = end.replace(b"\\", rb"\\").decode(errors="backslashreplace")
    return without_controls(text)  # U+0080 as \u0080, but the byte 80 as \x80


def _neither(key: str, label: str, field: str) -> InvalidValue:
    return InvalidValue(field, key, f"must be a name or {key_of(label, 'NAME')}")
