"""The imperative half, which combines rtnetlink and namespaces. :class:`Session` is its only public name."""

from .session import Session

__all__ = ["Session"]
