"""The methods of a session that read many namespaces or many links at once, for an agent."""

from __future__ import annotations

import warnings
from collections.abc import Container, Iterable
from typing import TYPE_CHECKING, Any

from vethlib.errors import VethError
from vethlib.linkref import as_indexed, as_key, as_list, check_refs
from vethlib.links import Dependents, End, Link, NetnsRef
from vethlib.session.core.refusal import loading

from .base import SessionBase

if TYPE_CHECKING:
    from vethlib.rates import Sample
    from vethlib.session.read.fingerprint import Fingerprints
    from vethlib.session.read.further import Asked
    from vethlib.session.read.survey import Survey


__all__ = ["SurveyingSession"]


class SurveyingSession(SessionBase):
    """A session that reads many namespaces, or many links in them, at once."""

    def survey(self, refs: Iterable[str], *, may_be_closed: Container[str] = (), fingerprints: bool = False) -> Survey:
        """Read all links and addresses of many namespaces at once, and find the peer of each veth.

        A reference that leads to no namespace, or to a namespace that cannot be read, is not an error; its entry in
        ``places`` is the reason. Raises NetlinkError for the home namespace, and NotPermitted if no namespace can be
        entered, except for references in `may_be_closed`, which have that error in ``places``, too. With
        `fingerprints`, the result can be compared with :meth:`fingerprints` later.
        """
        with loading:
            from vethlib.session.read.survey import survey  # 1 ms, for the agent

        return survey(self._namespaces, check_refs(refs), may_be_closed, fingerprints=fingerprints)

    def fingerprints(self, refs: Iterable[str]) -> Fingerprints | None:
        """Take the fingerprints of these namespaces; they equal those of a survey if it would read the same again.

        This takes a third of the time of a survey. Returns None if a namespace cannot be read at the moment.
        """
        with loading:
            from vethlib.session.read.fingerprint import fingerprints  # as above

        return fingerprints(self._namespaces, check_refs(refs))

    def inspect(
        self,
        links: Iterable[tuple[NetnsRef, str | int] | Link | End],
        refs: Iterable[str] = (),
        *,
        ends_at_home: bool = False,
        may_be_closed: Container[str] = (),
    ) -> Survey:
        """Read single links: (reference, name or alternative name), (reference, ifindex), a Link or an End.

        Like :meth:`survey`, but only for these links. The result has the links that exist, each once, with their
        addresses, and with ``peer`` if both ends are among them. With `ends_at_home`, it also has the peers that are in
        the home namespace. ``places`` has all references of `links` and `refs`; an open Netns appears as its text, or
        as "fd:N" if its text is also another reference of the call. The cost (0.2 ms for a pair) does not depend on the
        number of other links. Raises the same errors as :meth:`survey`, and NetnsNotFound for a closed Netns.
        """
        with loading:
            from vethlib.session.read.survey import inspect  # as above

        keys = map(as_key, as_list(links, "links", "must be a list of links"))
        return inspect(self._namespaces, keys, check_refs(refs), ends_at_home=ends_at_home, may_be_closed=may_be_closed)

    def fields_many(
        self, asked: Iterable[Asked], *, surplus: int | None = None
    ) -> list[dict[str, Any] | VethError | None]:
        """Return fields of many links, each (reference, ifindex, fields to read), as :meth:`fields` does.

        If `sysctls` is None, all settings that differ from those of a new link are read. An error is returned in the
        place of each link that it concerns; None for a missing link.

        `surplus` is for an agent: a tenant may have added millions of routes or neighbours to its links, and reading
        them would take seconds. With `surplus`, only some of the entries of such a namespace are read. The result for a
        link then has all of its routes and neighbours, or at least `surplus` more than those in its fields to read;
        otherwise, it is an error with the errno EFBIG.
        """
        with loading:
            from vethlib.session.read.further import NO_QUESTION, as_asked, read_further_of  # for an agent

        return read_further_of(self._namespaces, map(as_asked, as_list(asked, "asked", NO_QUESTION)), surplus)

    def stats_in(self, refs: Iterable[str]) -> dict[str, list[Sample] | VethError]:
        """Return the counters of all links in many namespaces, by reference.

        This takes one dump per namespace, 12 µs per link. A reference that leads to no namespace, or to a namespace
        that cannot be read, is not an error: its value is the exception.
        """
        with loading:
            from vethlib.session.read.counting import count_in  # for few callers

        return count_in(self._namespaces, check_refs(refs))

    def dependents(self, links: Iterable[tuple[NetnsRef, int] | Link]) -> list[Dependents]:
        """Return the dependents of each Link or (reference, ifindex): routes, neighbours, qdiscs, links on top of it.

        These are lost when the link is deleted, and some of them when it goes down. A link that is missing has none.
        Raises NetnsNotFound, NetlinkError.
        """
        with loading:
            from vethlib.session.read.dependents import read_dependents  # for few callers

        indexed = map(as_indexed, as_list(links, "links", "must be a list of links"))
        return read_dependents(self._namespaces, indexed)

    def borne(self, links: Iterable[tuple[NetnsRef, int] | Link]) -> list[Dependents]:
        """Do the same as :meth:`dependents`, which is the present name of this method."""
        warnings.warn("use Session.dependents(), the present name of this method", DeprecationWarning, stacklevel=2)
        return self.dependents(links)
