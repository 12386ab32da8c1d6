"""The exception of a contestant that cannot run."""

__all__ = ["Unavailable"]


class Unavailable(Exception):
    """A requirement is missing on this machine: ``needs``. The message tells what to install."""

    def __init__(self, message: str, needs: str = "") -> None:
        super().__init__(message)
        self.needs = needs
