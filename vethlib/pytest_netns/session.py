"""The session of a run."""

from __future__ import annotations

from vethlib.session import Session

__all__ = ["RunSession"]


class RunSession(Session):
    """A session that a test cannot close, not even with a ``with`` statement: all nodes and other tests use it, too."""

    def close(self) -> None:
        """Do nothing; the session is closed at the end of the run."""

    def end(self) -> None:
        """Close the session."""
        super().close()
