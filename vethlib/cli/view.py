"""Links as every command sees and prints them: with the namespace each is in, and the other end of each pair."""

from __future__ import annotations

from collections.abc import Iterable

from vethlib import ns
from vethlib.errors import LinkNotFound, NotPermitted, VethError
from vethlib.links import describe
from vethlib.session import Session
from vethlib.session.survey import LinkAt, SurveyedLink

from .text import natural
from .where import ref_text

__all__ = ["View"]


class View:
    """A look at home, every named namespace and those of `refs`, which have to be there.

    `hidden` says why the named ones could not be looked at, where an ordinary user may not.
    """

    def __init__(self, session: Session, refs: Iterable[str] = ()) -> None:
        refs = list(refs)
        named = [f"netns:{name}" for name in sorted(ns.names(), key=natural)]
        self.hidden = ""
        try:
            survey = session.survey(["", *refs, *named])
        except NotPermitted as error:
            survey = session.survey(["", *refs])
            self.hidden = str(error)
        for ref in refs:
            if isinstance(found := survey.places[ref], VethError):
                raise found
        self.links = survey.links
        self._places = survey.places
        self._by_id: dict[LinkAt, SurveyedLink] = {(one.at, one.link.index): one for one in survey.links}

    def refs(self) -> list[str]:
        """The namespaces that could be looked at, each once."""
        places = {place: ref for ref, place in reversed(self._places.items()) if isinstance(place, tuple)}
        return sorted(places.values(), key=natural)

    def within(self, ref: str) -> list[SurveyedLink]:
        """Every link of one namespace."""
        return [one for one in self.links if one.at == self._places[ref]]

    def find(self, name: str, ref: str, request: str) -> SurveyedLink:
        """A link by its name or alternative name. Raises LinkNotFound."""
        for one in self.within(ref):
            if name in (one.link.name, *one.link.altnames):
                return one
        raise LinkNotFound(f"{request}: there is no link {describe(name, ref)}", netns=ref, request=request)

    def peer(self, one: SurveyedLink) -> SurveyedLink | None:
        """The other end, where that is somewhere we could look."""
        return None if one.peer is None else self._by_id[one.peer]

    def pairs(self) -> list[tuple[SurveyedLink, SurveyedLink]]:
        """Every pair whose ends were both seen, once; the end first whose namespace and name come first."""

        def rank(one: SurveyedLink) -> tuple[object, ...]:
            # Not by inode numbers, which the kernel gives anew as it likes.
            return natural(one.ref), natural(one.link.name), one.at, one.link.index

        peers = ((one, self.peer(one)) for one in self.links)
        return [(one, peer) for one, peer in peers if peer is not None and rank(one) < rank(peer)]

    def peer_text(self, one: SurveyedLink) -> str:
        """The other end for people; "" where a link is no veth."""
        if one.link.peer_index is None:
            return ""
        peer = self.peer(one)
        if peer is None:
            return f"⇄ index {one.link.peer_index} in an unnamed namespace"
        return f"⇄ {peer.link.name}" + (f"@{ref_text(peer.ref)}" if peer.at != one.at else "")

    def as_dict(self, one: SurveyedLink) -> dict[str, object]:
        """A link for JSON. The netns and name of a peer are null where it could not be seen."""
        link, peer = one.link, self.peer(one)
        peer_dict: dict[str, object] | None = None
        if peer is not None:
            peer_dict = {"netns": peer.ref, "name": peer.link.name, "index": peer.link.index}
        elif link.peer_index is not None:
            peer_dict = {"netns": None, "name": None, "index": link.peer_index}
        return {
            "netns": one.ref,
            "name": link.name,
            "index": link.index,
            "kind": link.kind,
            "mac": link.mac,
            "mtu": link.mtu,
            "up": link.up,
            "operstate": link.operstate,
            "addresses": [str(address) for address in link.addresses],
            "alias": link.alias,
            "peer": peer_dict,
        }
