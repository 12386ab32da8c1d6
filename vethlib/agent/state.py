"""The states an interface can be in, and a state together with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["State", "Verdict"]


class State(StrEnum):
    """How far an interface is from what its configuration says."""

    PENDING = "PENDING"  # waits for something that is not there, and is built when it comes
    CONFIGURED = "CONFIGURED"
    RETRYING = "RETRYING"  # the kernel refused; tried again by itself
    FAILED = "FAILED"  # cannot be done as things are; tried again when they change
    INVALID = "INVALID"  # the configuration itself can never work
    UNMANAGED = "UNMANAGED"  # a link that is not ours


@dataclass(frozen=True, slots=True)
class Verdict:
    """A state and the exact reason for it; a CONFIGURED interface has none."""

    state: State
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.state} ({self.reason})" if self.reason else str(self.state)
