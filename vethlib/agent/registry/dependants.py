"""Programs that attach to a link of the host: an AF_PACKET socket, the host interface of a packet processor. Pure.

1. A dependant is attached exactly while a link with its name exists, and is up, in the namespace that its reference
   leads to. It does not matter who created the link.
2. It is attached once to a link, whatever else of the link changes. Another ifindex, name or namespace means another
   link: then it is first detached from the previous one.
3. It remains registered in the meantime, and is attached again when the link is created again.
4. If it refuses (its ``attached`` raises), it is not attached, and is asked again when the link has changed; also some
   time later, if the link was missing, or there was no descriptor or no memory for it.
5. A link that was moved away and back looks as before. If events were lost, so that this may have gone unnoticed, a
   dependant that has a method ``is_attached`` is asked whether it still is; if that raises, it is attached again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, KeysView, Mapping
from dataclasses import replace
from typing import Final, Protocol, TypeAlias, TypeVar

from vethlib.agent.planning.observed import NetnsId
from vethlib.errors import InvalidValue, LinkNotFound, NetnsNotFound, check_type, is_exhaustion
from vethlib.links import Link, check_lookup_name, describe

__all__ = ["Attachment", "Dependant", "Dependants"]

_log: Final = logging.getLogger("vethlib.agent")


class Dependant(Protocol):
    """A program that attaches to the link with kernel name `host_if_name` in the namespace of `netns`."""

    @property
    def host_if_name(self) -> str:
        """The kernel name of the link. Like `netns`, it is read once, when the dependant is registered."""

    @property
    def netns(self) -> str:
        """The reference of the namespace; "" is the home namespace."""

    def attached(self, link: Link) -> None:
        """Attach to the link, which exists and is up. An exception is logged and means that it is not attached."""

    def detached(self, link: Link) -> None:
        """Detach from the link, which is down, deleted or about to be deleted. An exception is logged."""


class Attachment:
    """A registered dependant. `link` is the link to which it is attached, or None."""

    def __init__(self, dependant: Dependant, forget: Callable[[Attachment], None]) -> None:
        if not hasattr(dependant, "host_if_name"):
            raise InvalidValue("dependant", dependant, "must be a Dependant, such as a PacketPort")
        self.dependant = dependant
        self.host_if_name = check_lookup_name(dependant.host_if_name, "host_if_name")
        self.netns = check_type(
            dependant.netns, str, "netns", 'must be a reference, such as "blue"; "" is the home namespace'
        )
        self.link: Link | None = None
        self._place: NetnsId | None = None  # where its reference led when it was last looked at
        self._refused: tuple[NetnsId, Link] | None = None
        self._forget = forget

    def remove(self) -> None:
        """Detach the dependant, if it is attached, and remove it. Calling this twice is harmless."""
        self._forget(self)

    def __str__(self) -> str:
        return f"{self.dependant} on {describe(self.host_if_name, self.netns)}"


K = TypeVar("K")

_Index: TypeAlias = dict[K, dict[str, dict[Attachment, None]]]
"""Dependants by what leads to a namespace, and by the name of their link."""


class Dependants:
    """All dependants, and the links that are up.

    `place_of` returns where a reference leads now; None for nowhere. `refs_at` returns the references under which a
    namespace is known. If a reference leads elsewhere than before, call :meth:`look_again`.

    Report the current links, not every past event: a dependant that is attached because of an outdated event will
    refuse. While a dependant is called, it may add and remove dependants, including itself.
    """

    def __init__(
        self, place_of: Callable[[str], NetnsId | None], refs_at: Callable[[NetnsId], Collection[str]]
    ) -> None:
        self._place_of = place_of
        self._refs_at = refs_at
        self._up: dict[NetnsId, dict[str, Link]] = {}  # namespace → name → link
        self._name_of: dict[tuple[NetnsId, int], str] = {}  # names of the links that are up
        # Thousands of containers have a link with the same name, so an event concerns only those that wait where it is.
        self._by_ref: _Index[str] = {}
        self._by_place: _Index[NetnsId] = {}
        self._starved: dict[Attachment, None] = {}  # there was no link, no descriptor or no memory for them

    @property
    def refs(self) -> KeysView[str]:
        """The references of the namespaces in which dependants wait for links, always the present ones."""
        return self._by_ref.keys()

    def names_at(self, ref: str) -> set[str]:
        """Return the names of the links that dependants wait for in the namespace of this reference."""
        return set(self._by_ref.get(ref, ()))

    def places(self) -> list[NetnsId]:
        """Return the namespaces with links that are known to be up."""
        return list(self._up)

    def knows(self, place: NetnsId, index: int) -> bool:
        """Return whether this link is known to be up."""
        return (place, index) in self._name_of

    def add(self, dependant: Dependant) -> Attachment:
        """Register a dependant, and attach it as soon as its link is up. :meth:`Attachment.remove` ends this."""
        attachment = Attachment(dependant, self._forget)
        try:
            _add(self._by_ref, attachment.netns, attachment)
            self._settle(attachment)
        except BaseException:
            self._forget(attachment)
            raise
        return attachment

    def _forget(self, attachment: Attachment) -> None:
        if self._has(attachment):
            _remove(self._by_ref, attachment.netns, attachment)
            self._settle(attachment)

    def _has(self, attachment: Attachment) -> bool:
        return attachment in self._by_ref.get(attachment.netns, {}).get(attachment.host_if_name, ())

    def close(self) -> None:
        """Detach and remove all dependants."""
        for by_name in list(self._by_ref.values()):
            for attachment in _all_of(by_name):
                attachment.remove()

    # --- links

    def link_is(self, place: NetnsId, link: Link) -> None:
        """Note the current state of a link: its dependants are attached if it is up, and detached if it is down."""
        name = self._name_of.get((place, link.index))
        if name is not None and (name != link.name or not link.up):
            self.link_is_gone(place, link.index)
        if link.up:
            before = self._up.setdefault(place, {}).get(link.name)
            if before is not None and before.index != link.index:
                del self._name_of[place, before.index]
            self._up[place][link.name] = link
            self._name_of[place, link.index] = link.name
            self._settle_all(place, link.name)

    def link_is_gone(self, place: NetnsId, link: str | int) -> None:
        """Note that the link with this name or ifindex was, or is about to be, deleted, moved, renamed or set down."""
        name = self._name_of.get((place, link)) if isinstance(link, int) else link
        up = self._up.get(place)
        known = None if name is None or up is None else up.get(name)
        if known is not None and up is not None:
            # Without a call in between, so that no interruption leaves half of it.
            del up[known.name], self._name_of[place, known.index]
            if not up:
                del self._up[place]
            self._settle_all(place, known.name)

    def place_is_gone(self, place: NetnsId) -> None:
        """Note that a namespace has ended, and all its links with it, or that it is no longer watched."""
        for name in list(self._up.get(place, ())):
            self.link_is_gone(place, name)

    def look_again(self, refs: Iterable[str]) -> None:
        """Attach and detach the dependants with these references, which may lead elsewhere than before."""
        for ref in set(refs):
            for attachment in _all_of(self._by_ref.get(ref, {})):
                self._settle(attachment)

    def check(self, place: NetnsId) -> None:
        """Attach those again that are no longer attached to a link of this namespace (rule 5)."""
        for attachment in _all_of(self._by_place.get(place, {})):
            link = attachment.link
            if link is not None and not _is_attached(attachment):
                self._detach(attachment, link)
                self._settle(attachment)

    @property
    def any_starved(self) -> bool:
        """Return whether something was missing to attach a dependant: :meth:`ask_starved` some time later."""
        return bool(self._starved)

    def ask_starved(self) -> None:
        """Attach the dependants for which something was missing."""
        for attachment in list(self._starved):
            attachment._refused = None
            del self._starved[attachment]
            self._settle(attachment)

    # --- attaching and detaching

    def _settle_all(self, place: NetnsId, name: str) -> None:
        """Attach and detach the dependants that wait, or are attached, in this namespace to a link of this name."""
        waiting = dict(self._by_place.get(place, {}).get(name, ()))
        for ref in self._refs_at(place):
            waiting |= self._by_ref.get(ref, {}).get(name, {})
        for attachment in waiting:
            self._settle(attachment)

    def _settle(self, attachment: Attachment) -> None:
        """Attach it to the right link, and to no other."""
        place, link = self._target(attachment)
        before = attachment.link
        if before is not None and (link is None or (place, link.index) != (attachment._place, before.index)):
            self._detach(attachment, before)
            place, link = self._target(attachment)  # it may have removed itself
        self._expect_at(attachment, place)
        if place is None or link is None:
            attachment._refused = None
        elif attachment.link is None and attachment._refused != (place, _plain(link)):
            self._attach(attachment, place, link)

    def _target(self, attachment: Attachment) -> tuple[NetnsId | None, Link | None]:
        if not self._has(attachment):
            return None, None
        place = self._place_of(attachment.netns)
        return place, None if place is None else self._up.get(place, {}).get(attachment.host_if_name)

    def _expect_at(self, attachment: Attachment, place: NetnsId | None) -> None:
        """Note where the reference of a dependant leads now; None for nowhere, or if it was removed."""
        if attachment._place != place:
            if attachment._place is not None:
                _remove(self._by_place, attachment._place, attachment)
            if place is not None:
                _add(self._by_place, place, attachment)
            attachment._place = place

    def _attach(self, attachment: Attachment, place: NetnsId, link: Link) -> None:
        attachment._refused = None
        attachment.link = mine = replace(link, netns=attachment.netns)
        try:
            attachment.dependant.attached(mine)
        except Exception as error:
            attachment._refused = place, _plain(link)
            if is_exhaustion(error) or isinstance(error, (LinkNotFound, NetnsNotFound)):
                self._starved[attachment] = None
            if attachment.link is mine:
                attachment.link = None
            _log.exception("%s cannot be attached; another attempt follows when the link changes", attachment)

    def _detach(self, attachment: Attachment, link: Link) -> None:
        attachment.link = None
        try:
            attachment.dependant.detached(link)
        except Exception:
            _log.exception("an error was raised while %s was detached; it counts as detached", attachment)


def _add(index: _Index[K], key: K, attachment: Attachment) -> None:
    index.setdefault(key, {}).setdefault(attachment.host_if_name, {})[attachment] = None


def _remove(index: _Index[K], key: K, attachment: Attachment) -> None:
    by_name = index.get(key, {})
    attachments = by_name.get(attachment.host_if_name, {})
    attachments.pop(attachment, None)
    if not attachments:
        by_name.pop(attachment.host_if_name, None)
    if not by_name:
        index.pop(key, None)


def _all_of(by_name: Mapping[str, Mapping[Attachment, None]]) -> list[Attachment]:
    return [attachment for those in by_name.values() for attachment in those]


def _is_attached(attachment: Attachment) -> bool:
    """Ask a dependant whether it is still attached to its link."""
    try:
        ask = getattr(attachment.dependant, "is_attached", None)
        return ask is None or bool(ask())
    except Exception:
        _log.exception("it is unknown whether %s is attached, so it is attached again", attachment)
        return False


def _plain(link: Link) -> Link:
    """Return a link without the attributes that not every source knows."""
    return replace(link, netns="", addresses=())
