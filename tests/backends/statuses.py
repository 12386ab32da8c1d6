"""Statuses to publish."""

from __future__ import annotations

from vethlib.agent import State, Status


def status(name: str, reason: str = "") -> Status:
    return Status(name, State.PENDING if reason else State.CONFIGURED, reason, 1_700_000_000.25)
