"""The imperative half: joins rtnetlink and namespaces. :class:`Session` is its one public name."""

from .session import Session

__all__ = ["Session"]
