"""The link that a call works on (:class:`Target`), the kernel's answers about it, and the errors that name it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from vethlib._nl.batch import Outcome
from vethlib._nl.link import LinkMessage
from vethlib._nl.nsid import get_nsid, parse_nsid
from vethlib.errors import LinkNotFound, Malformed, NetlinkError
from vethlib.links import Link, NetnsRef, describe
from vethlib.session.core.namespaces import Birth, Namespaces, OpenNetns
from vethlib.session.core.refusal import refusal

from .samelink import is_another

__all__ = [
    "Target",
    "is_another_in",
    "missing",
    "not_found",
    "nsid_of_home",
    "read_body",
    "renumbered",
    "replaced",
    "same_link",
]

T = TypeVar("T")


class Target:
    """The link that a call works on: its open namespace, its name, and the reference to the namespace as given.

    `request` describes the request in errors ("set 'a'"); "" for a lookup. With `ifindex`, the link must have that
    ifindex; with `only_if`, that must return True for the link and the birth of its namespace; with `seen`, it must be
    that link.
    """

    __slots__ = ("ifindex", "name", "netns", "only_if", "place", "request", "seen")

    def __init__(
        self,
        place: OpenNetns,
        name: str,
        netns: NetnsRef,
        request: str = "",
        ifindex: int | None = None,
        only_if: Callable[[Link, Birth], bool] | None = None,
        seen: Link | None = None,
    ) -> None:
        self.place = place
        self.name = name
        self.netns = netns
        self.request = request
        self.ifindex = ifindex
        self.only_if = only_if
        self.seen = seen

    def renamed(self, name: str) -> Target:
        """Return the same target under another name."""
        return Target(self.place, name, self.netns, self.request, self.ifindex)

    def requesting(self, request: str) -> Target:
        """Return the same target with another request."""
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

    def check(self, namespaces: Namespaces, link: LinkMessage) -> LinkMessage:
        """Return the link of this name. Raises LinkNotFound unless it has the required ifindex and is the link seen."""
        self.check_ifindex(link.ifindex)
        if self.seen is not None and is_another_in(namespaces, self.place, self.seen, link):
            raise replaced(self.name, self.netns, self.what)
        return link


def is_another_in(namespaces: Namespaces, place: OpenNetns, seen: Link, now: LinkMessage) -> bool:
    """Return whether a Link is not the link that now has its ifindex in an open namespace."""
    peer_is_home = partial(_is_home, namespaces, place, now.link_netnsid)
    return is_another(seen, now, namespaces.cookie(place), in_home=place.is_home, peer_is_home=peer_is_home)


def _is_home(namespaces: Namespaces, place: OpenNetns, nsid: int | None) -> bool:
    return nsid is not None and nsid == nsid_of_home(namespaces, place)


def nsid_of_home(namespaces: Namespaces, place: OpenNetns) -> int | None:
    """Return the id of the home namespace in another one; None if it has none there."""
    outcome = namespaces.ask(place, get_nsid(namespaces.home.fd))
    return None if outcome.errno else read_body(place, outcome, parse_nsid, "look up the id of the home namespace")


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
    return refusal(Outcome(errno.EBADMSG, text), request, place.ref)


def missing(name: str, netns: NetnsRef, request: str) -> NetlinkError:
    """Return LinkNotFound for a name that no link has."""
    says = f"there is no link {describe(name, netns)}"
    return refusal(Outcome(errno.ENODEV), request, netns, says=says)


def not_found(outcome: Outcome, name: str, netns: NetnsRef, request: str = "") -> NetlinkError:
    """Return the error for a question about a link that the kernel has refused: LinkNotFound for ENODEV."""
    request = request or f"look up {describe(name, netns)}"
    return missing(name, netns, request) if outcome.errno == errno.ENODEV else refusal(outcome, request, netns)


def renumbered(now: int, index: int | None, name: str, netns: NetnsRef, request: str) -> NetlinkError:
    """Return LinkNotFound for a name that now belongs to the link with ifindex `now`, not to the link with `index`."""
    says = f"{describe(name, netns)} now has ifindex {now}, not {index}: it is another link"
    error = refusal(Outcome(errno.ENODEV), request, netns, says=says)
    assert isinstance(error, LinkNotFound)
    error.index = now
    return error


def replaced(name: str, netns: NetnsRef, request: str) -> NetlinkError:
    """Return LinkNotFound for a link that now has the name and the ifindex of another."""
    return refusal(Outcome(errno.ENODEV), request, netns, says=f"{describe(name, netns)} is now another link")


def same_link(index: int, seen: int | None, name: str, netns: NetnsRef) -> int:
    """Return `index` if the caller has seen the link with that ifindex, or with none. Raises LinkNotFound otherwise."""
    if seen not in (None, index):
        error = renumbered(index, seen, name, netns, f"look up {describe(name, netns)}")
        error.item = (name, netns)
        raise error
    return index
