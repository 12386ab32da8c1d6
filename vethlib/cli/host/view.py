"""The links of this host, each with its namespace and its peer, as commands show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vethlib import ns
from vethlib.cli.render.linktext import ref_text
from vethlib.cli.term.output import Output
from vethlib.cli.term.text import natural
from vethlib.endfields.newaddress import scope_word
from vethlib.errors import LinkNotFound, NetnsNotFound, NotPermitted, VethError
from vethlib.links import Address, describe
from vethlib.session import Session
from vethlib.session.core.namespaces import Identity
from vethlib.session.read.survey import LinkAt, SurveyedLink

__all__ = ["View"]


class View:
    """The links of the home namespace, all named namespaces and those of `refs`, which must exist unless `missing_ok`.

    `hidden` is the reason why named namespaces cannot be observed at all, for an unprivileged user. `unseen` has the
    namespaces that exist, or may exist, but could not be observed, each with the reason.
    """

    def __init__(self, session: Session, refs: Iterable[str] = (), *, missing_ok: bool = False) -> None:
        refs = list(refs)
        named = [f"netns:{name}" for name in sorted(ns.names(), key=natural)]
        self.hidden = ""
        try:
            survey = session.survey(["", *refs, *named])
        except NotPermitted as error:
            survey = session.survey(["", *refs])
            self.hidden = str(error)
        for ref in refs:
            if isinstance(place := survey.places[ref], VethError) and not missing_ok:
                raise place
        self.unseen = {
            ref: str(place)
            for ref, place in survey.places.items()
            if isinstance(place, VethError) and not isinstance(place, NetnsNotFound)
        }
        self.links = survey.links
        self._session = session
        self._masters: dict[LinkAt, str] = {}
        self._places = survey.places
        self._by_id: dict[LinkAt, SurveyedLink] = {(one.at, one.link.index): one for one in survey.links}
        # A caller may ask for thousands of links or namespaces.
        self._within: dict[Identity, list[SurveyedLink]] = {}
        self._named: dict[tuple[Identity, str], SurveyedLink] = {}
        for one in survey.links:
            self._within.setdefault(one.at, []).append(one)
            for name in (one.link.name, *one.link.altnames):
                self._named.setdefault((one.at, name), one)

    def warn(self, output: Output) -> None:
        """Warn of namespaces that are not shown."""
        if self.hidden:
            output.warning(f"only links of this namespace are shown: {self.hidden}")
        for ref, reason in self.unseen.items():
            output.warning(f"{ref_text(ref)} is not shown: {reason}")

    def refs(self) -> list[str]:
        """Return the observed namespaces, each once."""
        return sorted(self.refs_by_place().values(), key=natural)

    @property
    def places(self) -> Mapping[str, Identity | VethError]:
        """The identity of the namespace that each reference leads to, or why it is not known."""
        return self._places

    def refs_by_place(self) -> dict[Identity, str]:
        """Return the reference of each observed namespace by its identity."""
        return {place: ref for ref, place in reversed(self._places.items()) if isinstance(place, tuple)}

    def within(self, ref: str) -> list[SurveyedLink]:
        """Return all links of a namespace."""
        place = self._places[ref]
        return self._within.get(place, []) if isinstance(place, tuple) else []

    def find(self, name: str, ref: str, request: str) -> SurveyedLink:
        """Find a link by its name or alternative name. Raises LinkNotFound."""
        place = self._places[ref]
        found = self._named.get((place, name)) if isinstance(place, tuple) else None
        if found is None:
            raise LinkNotFound(f"{request}: there is no link {describe(name, ref)}", netns=ref, request=request)
        return found

    def read_masters(self, links: Iterable[SurveyedLink]) -> None:
        """Read the masters of these links at once, for :meth:`master`."""
        asked = list(links)
        read = self._session.fields_many((one.ref, one.link.index, {"master": ""}) for one in asked)
        for one, fields in zip(asked, read, strict=True):
            # A link that has been deleted, or can no longer be read, has none.
            self._masters[one.at, one.link.index] = str(fields["master"]) if isinstance(fields, dict) else ""

    def master(self, surveyed: SurveyedLink) -> str:
        """Return the bridge or VRF that a link is attached to; "" if there is none. Reads it if it was not read yet."""
        key = surveyed.at, surveyed.link.index
        if key not in self._masters:
            self.read_masters([surveyed])
        return self._masters[key]

    def peer(self, surveyed: SurveyedLink) -> SurveyedLink | None:
        """Return the other end, if it is in an observed namespace."""
        return None if surveyed.peer is None else self._by_id[surveyed.peer]

    def pairs(self) -> list[tuple[SurveyedLink, SurveyedLink]]:
        """Return the pairs of which both ends were observed, sorted by namespace and name within each pair."""

        def rank(one: SurveyedLink) -> tuple[object, ...]:
            # Not by inode numbers, which the kernel reuses.
            return natural(one.ref), natural(one.link.name), one.at, one.link.index

        peers = ((one, self.peer(one)) for one in self.links)
        return [(one, peer) for one, peer in peers if peer is not None and rank(one) < rank(peer)]

    def peer_text(self, surveyed: SurveyedLink) -> str:
        """Return the other end for people; "" for a link that is not a veth."""
        if surveyed.link.peer_index is None:
            return ""
        peer = self.peer(surveyed)
        if peer is None:
            # If a namespace is not shown, it may be the one.
            where = "another namespace" if self.hidden or self.unseen else "an unnamed namespace"
            return f"⇄ index {surveyed.link.peer_index} in {where}"
        return f"⇄ {peer.link.name}" + (f"@{ref_text(peer.ref)}" if peer.at != surveyed.at else "")

    def as_dict(self, surveyed: SurveyedLink) -> dict[str, object]:
        """Return a link for JSON. Namespace and name of a peer are null if it was not observed."""
        link, peer = surveyed.link, self.peer(surveyed)
        peer_dict: dict[str, object] | None = None
        if peer is not None:
            peer_dict = {"netns": peer.ref, "name": peer.link.name, "index": peer.link.index}
        elif link.peer_index is not None:
            peer_dict = {"netns": None, "name": None, "index": link.peer_index}
        return {
            "netns": surveyed.ref,
            "name": link.name,
            "index": link.index,
            "kind": link.kind,
            "mac": link.mac,
            "mtu": link.mtu,
            "up": link.up,
            "operstate": link.operstate,
            "carrier": link.carrier,
            "addresses": [str(address) for address in link.addresses],
            "address_info": [_address(address) for address in surveyed.addresses],
            "alias": link.alias,
            "peer": peer_dict,
            "ipv6": link.ipv6,
            "master": self.master(surveyed),
            "altnames": list(link.altnames),
        }


def _address(address: Address) -> dict[str, object]:
    """Return an address for JSON; `valid` and `preferred` are in seconds, null if they never expire."""
    return {
        "address": str(address.interface),
        "peer": None if address.peer is None else str(address.peer),
        "state": address.state,
        "broadcast": None if address.broadcast is None else str(address.broadcast),
        "label": address.label,
        "scope": scope_word(address),
        "nodad": address.nodad,
        "noprefixroute": address.noprefixroute,
        "valid": address.valid,
        "preferred": address.preferred,
        "proto": address.proto,
    }
