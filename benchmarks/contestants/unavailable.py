"""The exception of a contestant that cannot run."""

__all__ = ["Unavailable"]


class Unavailable(Exception):
    """A requirement is missing on this machine; the message tells what to install."""
