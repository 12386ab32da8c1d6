"""The keys of interfaces in a store that many hosts share; a plain name stands for its own label's key."""

from __future__ import annotations

import re

from vethlib.errors import InvalidValue

__all__ = ["key_of", "liveness_key", "name_of", "status_key"]

_KEY = re.compile(r"/vnf-agent/([^/]*)/linux/config/v1/interface/([^/]*)")


def key_of(label: str, name: str) -> str:
    """``/vnf-agent/LABEL/linux/config/v1/interface/NAME``."""
    return f"/vnf-agent/{label}/linux/config/v1/interface/{name}"


def status_key(label: str, name: str) -> str:
    """``/vnf-agent/LABEL/linux/status/v1/interface/NAME``: what the agent says of an interface."""
    return f"/vnf-agent/{label}/linux/status/v1/interface/{name}"


def liveness_key(label: str) -> str:
    """``/vnf-agent/LABEL/check/status/v1/agent``: there while the agent is alive."""
    return f"/vnf-agent/{label}/check/status/v1/agent"


def name_of(key: str, label: str, field: str = "key") -> str:
    """The interface's name of a key, or of the plain name that it may be. Raises InvalidValue for another label's."""
    if "/" not in key:
        return key
    found = _KEY.fullmatch(key)
    if found is None:
        raise InvalidValue(field, key, f"write a name, or {key_of(label, 'NAME')}")
    if found[1] != label:
        raise InvalidValue(field, key, f"the key is of label {found[1]}, not of {label}: give its label, or its name")
    return found[2]
