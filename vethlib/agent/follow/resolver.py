"""What a microservice label stands for: who says so, and how it is told that the answer is another one.

A resolver is callable, so that ``Session(resolver=resolver)`` takes the same object. It answers from what it knows and
does not wait; a :class:`~vethlib.agent.follow.Follower` includes its descriptor in its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from vethlib.errors import NetnsNotFound, VethError
from vethlib.ns import parse

__all__ = ["MemoryResolver", "Remarks", "Resolver", "ResolverDown"]


class ResolverDown(VethError):
    """Who would know what a label stands for does not answer, so nothing is known; the text says why."""


@runtime_checkable
class Resolver(Protocol):
    """Says what microservice labels stand for, and when that may have changed."""

    def __call__(self, label: str) -> str:
        """The reference that `label` stands for now ("pid:42").

        Raises :class:`NetnsNotFound` ("microservice vnf1 is not running") where there is none, and
        :class:`ResolverDown` where that cannot be known.
        """

    def fileno(self) -> int:
        """A descriptor that is readable when :meth:`changed` may have something."""

    def changed(self) -> Iterable[str] | None:
        """The labels whose answer may have changed since the last call; None: any of them. Does not wait."""

    def close(self) -> None:
        """Give everything back; for whoever made it."""


@runtime_checkable
class Remarks(Protocol):
    """What a resolver may have besides: something to say of an answer that an operator should know."""

    def remark(self, label: str) -> str:
        """That, in words; "" for nothing. Other words count as a change of the answer."""


class MemoryResolver:
    """A resolver that is told the answers: for programs that know their microservices themselves, and for tests."""

    def __init__(self) -> None:
        self._answers: dict[str, str] = {}
        self._remarks: dict[str, str] = {}
        self._reason = ""
        self._changed: set[str] | None = set()
        self._news = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def set(self, label: str, ref: str, remark: str = "") -> None:
        """From now on `label` stands for `ref`, of which there is this to say; InvalidValue if that is no reference."""
        parse(ref)
        self._answers[label] = ref
        self._remarks[label] = remark
        self._tell(label)

    def remove(self, label: str) -> None:
        """From now on `label` stands for nothing."""
        self._answers.pop(label, None)
        self._remarks.pop(label, None)
        self._tell(label)

    def down(self, reason: str) -> None:
        """Answer with :class:`ResolverDown` until :meth:`up`. What is set meanwhile counts from then on."""
        self._reason = reason
        self._tell(None)

    def up(self) -> None:
        """Answer again."""
        self._reason = ""
        self._tell(None)

    def _tell(self, label: str | None) -> None:
        if label is None:
            self._changed = None
        elif self._changed is not None:
            self._changed.add(label)
        os.eventfd_write(self._news, 1)

    def __call__(self, label: str) -> str:
        """As in :class:`Resolver`."""
        if self._reason:
            raise ResolverDown(self._reason)
        if label not in self._answers:
            raise NetnsNotFound(f"microservice {label} is not running", netns=f"microservice:{label}")
        return self._answers[label]

    def remark(self, label: str) -> str:
        """As in :class:`Remarks`."""
        return "" if self._reason else self._remarks.get(label, "")

    def fileno(self) -> int:
        """As in :class:`Resolver`."""
        return self._news

    def changed(self) -> Iterable[str] | None:
        """As in :class:`Resolver`."""
        try:
            os.eventfd_read(self._news)
        except BlockingIOError:
            pass
        changed, self._changed = self._changed, set()
        return changed

    def close(self) -> None:
        """Close the descriptor; twice is harmless."""
        if self._news >= 0:
            os.close(self._news)
            self._news = -1
