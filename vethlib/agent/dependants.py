"""Those that attach to a link of the host: an AF_PACKET socket, a packet processor's host interface. Pure.

1. A dependant is attached exactly while a link of its name is there, and up, in the namespace that its reference leads
   to; any link that is told of counts, whoever made it.
2. It is attached once to a link, whatever else of the link changes. Another ifindex, name or namespace is another link:
   then it is first detached from the one it has.
3. It is kept in the meantime, and attached again when the link comes back.
4. If it refuses (its ``attached`` raises), it is not attached, and asked again when the link has changed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final, Protocol

from vethlib.links import Link, describe

from .observed import Place

__all__ = ["Attachment", "Dependant", "Dependants"]

_log: Final = logging.getLogger("vethlib.agent")


class Dependant(Protocol):
    """What attaches to the link called `host_if_name` (its kernel name) in the namespace that `netns` leads to."""

    @property
    def host_if_name(self) -> str:
        """The kernel name of the link. Read once, when it is added; so is `netns`."""

    @property
    def netns(self) -> str:
        """The reference of the namespace, "" for home."""

    def attached(self, link: Link) -> None:
        """The link is there and up. What this raises is logged, and means that it is not attached."""

    def detached(self, link: Link) -> None:
        """The link it was attached to is about to go, or has gone or is down. What this raises is logged."""


class Attachment:
    """A dependant that was added. `link` is what it is attached to, None while it is not."""

    def __init__(self, dependant: Dependant, forget: Callable[[Attachment], None]) -> None:
        self.dependant = dependant
        self.host_if_name = dependant.host_if_name
        self.netns = dependant.netns
        self.link: Link | None = None
        self._place: Place | None = None  # of the link
        self._refused: tuple[Place, Link] | None = None
        self._forget = forget

    def remove(self) -> None:
        """Detach the dependant, if it is attached, and forget it; twice is harmless."""
        self._forget(self)

    def __str__(self) -> str:
        return f"{self.dependant} on {describe(self.host_if_name, self.netns)}"


class Dependants:
    """All of them, and the links that are there and up. `place_of` says where a reference leads now, if anywhere.

    To be told of what is, not of each thing that once happened: a dependant that is sent to a link by an event older
    than the link's end will refuse. A dependant may add and remove others, and itself, while it is called.
    """

    def __init__(self, place_of: Callable[[str], Place | None]) -> None:
        self._place_of = place_of
        self._up: dict[tuple[Place, str], Link] = {}
        self._name_of: dict[tuple[Place, int], str] = {}  # of those that are up
        self._by_name: dict[str, list[Attachment]] = {}

    @property
    def refs(self) -> set[str]:
        """The references of the namespaces that somebody waits in."""
        return {one.netns for several in self._by_name.values() for one in several}

    def names_at(self, ref: str) -> set[str]:
        """The names of the links that somebody waits for in the namespace of this reference."""
        return {name for name, several in self._by_name.items() if any(one.netns == ref for one in several)}

    def add(self, dependant: Dependant) -> Attachment:
        """Attach it now if its link is up, else when it is; `remove()` of what is returned ends it."""
        attachment = Attachment(dependant, self._forget)
        self._by_name.setdefault(attachment.host_if_name, []).append(attachment)
        self._settle(attachment)
        return attachment

    def _forget(self, attachment: Attachment) -> None:
        several = self._by_name.get(attachment.host_if_name, [])
        if attachment in several:
            several.remove(attachment)
            if not several:
                del self._by_name[attachment.host_if_name]
            self._settle(attachment)

    def close(self) -> None:
        """Detach and forget all."""
        for several in list(self._by_name.values()):
            for attachment in several.copy():
                attachment.remove()

    # --- what there is

    def link_is(self, place: Place, link: Link) -> None:
        """A link is as `link` says: up, and so its dependants are attached, or down, and so they are not."""
        name = self._name_of.get((place, link.index))
        if name is not None and (name != link.name or not link.up):
            self.link_is_gone(place, link.index)
        if link.up:
            before = self._up.get((place, link.name))
            if before is not None and before.index != link.index:
                del self._name_of[place, before.index]
            self._up[place, link.name] = link
            self._name_of[place, link.index] = link.name
            self._settle_all(link.name)

    def link_is_gone(self, place: Place, link: str | int) -> None:
        """The link of that name or ifindex is about to be deleted, moved, renamed or set down, or it has been."""
        name = self._name_of.get((place, link)) if isinstance(link, int) else link
        known = None if name is None else self._up.pop((place, name), None)
        if known is not None:
            del self._name_of[place, known.index]
            self._settle_all(known.name)

    def place_is_gone(self, place: Place) -> None:
        """A namespace has ended, and all its links with it; or nobody will tell of them any more."""
        for _, name in [at for at in self._up if at[0] == place]:
            self.link_is_gone(place, name)

    def look_again(self, refs: Iterable[str]) -> None:
        """These references may lead elsewhere than before."""
        refs = set(refs)
        for attachment in [one for several in self._by_name.values() for one in several if one.netns in refs]:
            self._settle(attachment)

    # --- what follows from it

    def _settle_all(self, name: str) -> None:
        for attachment in self._by_name.get(name, []).copy():
            self._settle(attachment)

    def _settle(self, attachment: Attachment) -> None:
        """Have it attached to the link it is to be attached to, and to no other."""
        place, link = self._wanted(attachment)
        had = attachment.link
        if had is not None and (link is None or (place, link.index) != (attachment._place, had.index)):
            self._detach(attachment, had)
            place, link = self._wanted(attachment)  # it may have had itself removed
        if place is None or link is None:
            attachment._refused = None
        elif attachment.link is None and attachment._refused != (place, _plain(link)):
            self._attach(attachment, place, link)

    def _wanted(self, attachment: Attachment) -> tuple[Place | None, Link | None]:
        if attachment not in self._by_name.get(attachment.host_if_name, ()):
            return None, None
        place = self._place_of(attachment.netns)
        return place, None if place is None else self._up.get((place, attachment.host_if_name))

    def _attach(self, attachment: Attachment, place: Place, link: Link) -> None:
        attachment._place, attachment._refused = place, None
        attachment.link = mine = replace(link, netns=attachment.netns)
        try:
            attachment.dependant.attached(mine)
        except Exception:
            attachment._refused = place, _plain(link)
            if attachment.link is mine:
                attachment.link = None
            _log.exception("%s cannot be attached; it is tried again when the link changes", attachment)

    def _detach(self, attachment: Attachment, link: Link) -> None:
        attachment.link = None
        try:
            attachment.dependant.detached(link)
        except Exception:
            _log.exception("%s was detached, but not without an error", attachment)


def _plain(link: Link) -> Link:
    """A link as all tell it, those who know its addresses and those who do not."""
    return replace(link, netns="", addresses=())
