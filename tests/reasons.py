"""What tests check of a state: the codes of its reasons, and their subjects. The sentences are in a table test.

Both are written in one line here, such as ``PENDING: peer-not-configured(b), process-gone(pid:42)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vethlib.agent import Status, Verdict
from vethlib.agent.reasons import Reason

__all__ = ["in_codes", "of_entry", "reasons_in_codes"]


def in_codes(judged: Verdict | Status) -> str:
    """Return the state of an interface and the codes of its reasons."""
    return _line(str(judged.state), reasons_in_codes(judged.reasons))


def reasons_in_codes(reasons: Iterable[Reason]) -> str:
    return ", ".join(_part(reason.as_dict()) for reason in reasons)


def of_entry(entry: Mapping[str, Any]) -> str:
    """Return the same for a status in JSON."""
    assert entry["code"] == next((reason["code"] for reason in entry["reasons"]), "")
    return _line(entry["state"], ", ".join(map(_part, entry["reasons"])))


def _line(state: str, reasons: str) -> str:
    return f"{state}: {reasons}" if reasons else state


def _part(reason: Mapping[str, str]) -> str:
    more = " ".join(filter(None, (reason["about"], reason.get("errno", ""))))
    return f"{reason['code']}({more})" if more else reason["code"]
