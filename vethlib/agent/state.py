"""The states of an interface, and a state together with its reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from .reasons import Reason

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
    """A state and its exact reason; a CONFIGURED interface has no reason.

    `reason` is the text for people, and `reasons` are its parts, each with a code for programs.
    """

    state: State
    reason: str = ""
    reasons: tuple[Reason, ...] = field(default=(), compare=False)

    @classmethod
    def because(cls, state: State, *reasons: Reason) -> Verdict:
        """Return a state with these reasons."""
        return cls(state, "; ".join([reason.text for reason in reasons]), reasons)

    @property
    def code(self) -> str:
        """The code of the first reason; "" if there is none."""
        return self.reasons[0].code if self.reasons else ""

    def __str__(self) -> str:
        return f"{self.state} ({self.reason})" if self.reason else str(self.state)
