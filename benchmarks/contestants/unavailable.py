"""The one reason why a contestant does not take part at all."""

__all__ = ["Unavailable"]


class Unavailable(Exception):
    """Something it needs is not on this machine; the message says what to install."""
