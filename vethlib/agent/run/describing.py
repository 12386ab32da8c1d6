"""The answer of a running agent to a question: one line of JSON each way, over its socket.

Any user may ask for the status, which is public anyway. The configuration is only for root and the agent's own user,
because it may come from files that others cannot read; so is what the agent did, which contains values of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from vethlib.agent.config.writing import to_dict
from vethlib.agent.reconcile.configurator import Configurator

__all__ = ["reply"]

_NOTHING: Final = b"{}\n"


def reply(
    configurator: Configurator, request: bytes, *, trusted: bool, publication: Mapping[str, Any] | None = None
) -> bytes:
    """Answer a request: {"describe": NAME}, or {"publication": true}. Anything else has an empty answer."""
    try:
        asked = json.loads(request)
    except (ValueError, RecursionError):
        return _NOTHING
    if asked == {"publication": True}:
        return json.dumps(publication or {}).encode() + b"\n"
    if not isinstance(asked, dict) or not isinstance(name := asked.get("describe"), str):
        return _NOTHING
    return json.dumps(_description(configurator, name, trusted=trusted)).encode() + b"\n"


def _description(configurator: Configurator, name: str, *, trusted: bool) -> dict[str, Any]:
    interface = configurator.interface(name)
    statuses = configurator.status(name)
    return {
        "name": name,
        "status": statuses[0].as_dict() if statuses else None,
        "configuration": to_dict(interface) if interface is not None and trusted else None,
        "changes": [
            change.as_dict() if trusted else change.as_dict() | {"done": ""} for change in configurator.history(name)
        ],
    }
