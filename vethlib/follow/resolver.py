"""Resolvers: find the namespace of a microservice label, and report when it changes.

A resolver is callable, so the same object can be passed to ``Session(resolver=resolver)``. It answers from memory and
never blocks; a :class:`~vethlib.follow.Follower` includes its descriptor in its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from vethlib.errors import NetnsNotFound, VethError
from vethlib.ns import parse
from vethlib.ns.descriptor import owned

__all__ = ["MemoryResolver", "Remarks", "Resolver", "ResolverDown", "SharesHome"]

LABEL_MAX = 255  # bytes; a container's label may be longer, but it has to fit into a reason


class ResolverDown(VethError):
    """The source of a resolver does not answer, so the label may or may not exist; the text has the reason.

    ``code`` is the reason for programs, "" if the resolver gives none. A DockerResolver gives "unanswered" (yet),
    "absent", "gone", "not-permitted", "no-answer", "engine-error", "other-pid-namespace", "rootless", "not-installed"
    (the Docker SDK), "no-thread", "uninspected" (a container that may have the label) or "closed".
    """

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


@runtime_checkable
class Resolver(Protocol):
    """Resolve microservice labels to namespace references, and report which may have changed."""

    def __call__(self, label: str) -> str:
        """Return the current reference of `label` ("pid:42").

        Raises :class:`NetnsNotFound` ("microservice vnf1 is not running") if there is none, and :class:`ResolverDown`
        if that cannot be known.
        """

    def fileno(self) -> int:
        """Return a descriptor that is readable when :meth:`changed` may have labels to report."""

    def changed(self) -> Iterable[str] | None:
        """Return the labels whose reference may have changed since the last call; None for all. Never blocks."""

    def close(self) -> None:
        """Release all resources; to be called by the creator of the resolver."""


@runtime_checkable
class Remarks(Protocol):
    """Optional for a resolver: remarks about its answers, for operators."""

    def remark(self, label: str) -> str:
        """Return a remark about the answer for `label`, or "". A changed remark counts as a changed answer."""


@runtime_checkable
class SharesHome(Protocol):
    """Optional for a resolver: whether the process of a microservice is in the home namespace on purpose.

    Any other process in the home namespace is assumed not to have unshared its network namespace yet: its interfaces
    wait until it has. (A resolver may also answer with a file that leads to the home namespace.)
    """

    def shares_home(self, label: str) -> bool:
        """Return whether the links of this microservice belong in the home namespace, if its process is in it."""


class MemoryResolver:
    """A resolver whose answers are set by the program, for programs that know their microservices, and for tests."""

    def __init__(self) -> None:
        self._answers: dict[str, str] = {}
        self._remarks: dict[str, str] = {}
        self._reason: str | None = None
        self._changed: set[str] | None = set()
        self._event = owned(os.eventfd, 0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def set(self, label: str, ref: str, remark: str = "") -> None:
        """Set the reference of `label`, and a remark about it. Raises InvalidValue if `ref` is not a reference."""
        parse(ref)
        self._answers[label] = ref
        self._remarks[label] = remark
        self._report(label)

    def remove(self, label: str) -> None:
        """Remove `label`."""
        self._answers.pop(label, None)
        self._remarks.pop(label, None)
        self._report(label)

    def down(self, reason: str) -> None:
        """Raise :class:`ResolverDown` for every label until :meth:`up`. Answers set meanwhile take effect then."""
        self._reason = reason
        self._report(None)

    def up(self) -> None:
        """Answer again."""
        self._reason = None
        self._report(None)

    def _report(self, label: str | None) -> None:
        if label is None:
            self._changed = None
        elif self._changed is not None:
            self._changed.add(label)
        if not self._event.closed:
            os.eventfd_write(self._event.fileno(), 1)

    def __call__(self, label: str) -> str:
        """As in :class:`Resolver`."""
        if self._reason is not None:
            raise ResolverDown(self._reason)
        if label not in self._answers:
            raise NetnsNotFound(f"microservice {label} is not running", netns=f"microservice:{label}")
        return self._answers[label]

    def remark(self, label: str) -> str:
        """As in :class:`Remarks`."""
        return "" if self._reason is not None else self._remarks.get(label, "")

    def fileno(self) -> int:
        """As in :class:`Resolver`."""
        return -1 if self._event.closed else self._event.fileno()

    def changed(self) -> Iterable[str] | None:
        """As in :class:`Resolver`."""
        try:
            if not self._event.closed:
                os.eventfd_read(self._event.fileno())
        except BlockingIOError:
            pass
        changed, self._changed = self._changed, set()
        return changed

    def close(self) -> None:
        """Close the descriptor: answers are given and set, but not reported. A second call does nothing."""
        self._event.close()
