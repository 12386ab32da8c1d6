"""A link that a call is about (:class:`Target`), the kernel's answers about it, and the errors that name it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar

from vethlib._nl.batch import Outcome
from vethlib.errors import LinkNotFound, Malformed, NetlinkError
from vethlib.links import Link, NetnsRef, describe
from vethlib.session.core.namespaces import Birth, OpenNetns
from vethlib.session.core.refusal import refusal

__all__ = ["Target", "missing", "not_found", "read_body", "renumbered", "same_link"]

T = TypeVar("T")


class Target:
    """A link that a call is about: its open namespace, its name, and the reference to the namespace as it was given.

    `request` is what errors say was requested ("set 'a'"), "" for a lookup. With `ifindex`, the link must have it; with
    `only_if`, that must be true of the link and of the birth of its namespace.
    """

    __slots__ = ("ifindex", "name", "netns", "only_if", "place", "request")

    def __init__(
        self,
        place: OpenNetns,
        name: str,
        netns: NetnsRef,
        request: str = "",
        ifindex: int | None = None,
        only_if: Callable[[Link, Birth], bool] | None = None,
    ) -> None:
        self.place = place
        self.name = name
        self.netns = netns
        self.request = request
        self.ifindex = ifindex
        self.only_if = only_if

    def renamed(self, name: str) -> Target:
        """Return the link under another name."""
        return Target(self.place, name, self.netns, self.request, self.ifindex)

    def requesting(self, request: str) -> Target:
        """Return the link with another request for it."""
        return Target(self.place, self.name, self.netns, request, self.ifindex)

    @property
    def what(self) -> str:
        """The request, in words."""
        return self.request or f"look up {describe(self.name, self.netns)}"

    def not_found(self, outcome: Outcome) -> NetlinkError:
        """Return the error for a question about the link that the kernel has refused."""
        return not_found(outcome, self.name, self.netns, self.what)

    def refusal(self, outcome: Outcome, *, says: str = "", cls: type[NetlinkError] | None = None) -> NetlinkError:
        """Return the error for a request that the kernel has refused; see :func:`.refusal.refusal`."""
        return refusal(outcome, self.what, self.netns, says=says, cls=cls)

    def read(self, outcome: Outcome, parse: Callable[[bytes], T]) -> T:
        """Return the answer to a question about the link, parsed. Raises NetlinkError (EBADMSG) if it is malformed."""
        try:
            return parse(outcome.bodies[0])
        except (Malformed, IndexError) as error:
            raise _unreadable(error, self.place, self.what) from error

    def check_ifindex(self, now: int) -> None:
        """Raise LinkNotFound if the link of this name, which has the ifindex `now`, must have another one."""
        if self.ifindex not in (None, now):
            raise renumbered(now, self.ifindex, self.name, self.netns, self.what)


def read_body(
    place: OpenNetns,
    outcome: Outcome,
    parse: Callable[[bytes], T],
    request: str | tuple[str, NetnsRef] = "read a link",
) -> T:
    """Return the answer to a question, parsed. Raises NetlinkError (EBADMSG) if it is malformed.

    `request` is the request in words, or the (name, namespace) of a link that is looked up.
    """
    try:
        return parse(outcome.bodies[0])
    except (Malformed, IndexError) as error:
        raise _unreadable(error, place, request) from error


def _unreadable(error: Exception, place: OpenNetns, request: str | tuple[str, NetnsRef]) -> NetlinkError:
    if not isinstance(request, str):
        request = f"look up {describe(*request)}"
    text = str(error) if isinstance(error, Malformed) else "an acknowledgement instead of an answer"
    return refusal(Outcome(errno.EBADMSG, text, ()), request, place.ref)


def missing(name: str, netns: NetnsRef, request: str) -> NetlinkError:
    """Return LinkNotFound for a name that no link has."""
    says = f"there is no link {describe(name, netns)}"
    return refusal(Outcome(errno.ENODEV, "", ()), request, netns, says=says)


def not_found(outcome: Outcome, name: str, netns: NetnsRef, request: str = "") -> NetlinkError:
    """Return the error for a question about a link that the kernel has refused: LinkNotFound for ENODEV."""
    request = request or f"look up {describe(name, netns)}"
    return missing(name, netns, request) if outcome.errno == errno.ENODEV else refusal(outcome, request, netns)


def renumbered(now: int, index: int | None, name: str, netns: NetnsRef, request: str) -> NetlinkError:
    """Return LinkNotFound for a name that now belongs to the link with ifindex `now`, not to that with `index`."""
    says = f"{describe(name, netns)} has ifindex {now} now, and not {index}: it is another link"
    error = refusal(Outcome(errno.ENODEV, "", ()), request, netns, says=says)
    assert isinstance(error, LinkNotFound)
    error.index = now
    return error


def same_link(index: int, seen: int | None, name: str, netns: NetnsRef) -> int:
    """Return `index` if the caller has seen the link with that ifindex, or with none. Raises LinkNotFound otherwise."""
    if seen not in (None, index):
        error = renumbered(index, seen, name, netns, f"look up {describe(name, netns)}")
        error.item = (name, netns)
        raise error
    return index
