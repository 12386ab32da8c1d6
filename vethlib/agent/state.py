"""The states of an interface, and a state together with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["State", "Verdict"]


class State(StrEnum):
    """The state of an interface compared with its configuration."""

    PENDING = "PENDING"  # a requirement is missing; the interface is built when it is met
    CONFIGURED = "CONFIGURED"
    RETRYING = "RETRYING"  # an attempt failed; the agent retries automatically, with backoff
    FAILED = "FAILED"  # impossible in the current state of the host; tried again when that changes
    INVALID = "INVALID"  # the configuration can never work
    UNMANAGED = "UNMANAGED"  # a link that this agent does not own


@dataclass(frozen=True, slots=True)
class Verdict:
    """A state and its exact reason; a CONFIGURED interface has no reason."""

    state: State
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.state} ({self.reason})" if self.reason else str(self.state)
