"""Read many namespaces at once: links, their addresses, and where the other end of each veth is.

:func:`survey` reads every link, :func:`inspect` only some. `seen.py` collects what has been read, and `peers.py` finds
the other ends.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final, TypeAlias

from vethlib._nl.addr import AddrMessage
from vethlib._nl.link import LinkMessage, get_link, get_named, parse_link
from vethlib.errors import InvalidValue, VethError, is_exhaustion
from vethlib.links import Link, NetnsRef, check_lookup_name
from vethlib.ns.netns import text_of
from vethlib.ns.reference import HasFileno, number_of
from vethlib.session.core.namespaces import Identity, Namespaces, OpenNetns
from vethlib.session.core.slabs import slabs

from .peers import Peers
from .reading import address_messages, address_messages_if_whole, table
from .seen import LinkAt, Seen, Survey, SurveyedLink
from .target import is_another_in, not_found, nsid_of_home, read_body

__all__ = ["LinkAt", "Survey", "SurveyedLink", "inspect", "survey"]

_FEW: Final = 512  # links whose addresses are read individually (10 µs each), as there may be any number of others

_Keys: TypeAlias = dict[str | int, list[Link] | None]
"""The links to read in a namespace, by name or ifindex: any link that has it (None), or only one of these Links."""

_Opener = Callable[[], AbstractContextManager[Namespaces]]


def survey(
    open_namespaces: Callable[[], Namespaces],
    refs: Iterable[str],
    may_be_closed: Container[str] = (),
    *,
    fingerprints: bool = False,
) -> Survey:
    """Read every namespace that `refs` lead to, and take their `fingerprints`, if requested.

    Raises errors of the home namespace, and NotPermitted if no namespace can be entered, except for `may_be_closed`.
    """
    wanted = list(dict.fromkeys(refs))
    seen = Seen(with_home="" in wanted, may_be_closed=may_be_closed)
    for slab in slabs(wanted):
        with open_namespaces() as namespaces:
            opened = seen.open(namespaces, slab)
            new = [place for ref, place in opened if seen.ref_of[place.identity] == ref]
            namespaces.open_sockets(new)
            for place in new:
                try:
                    found = {message.ifindex: message for message in table(namespaces, place)}
                    addresses = _all_addresses(namespaces, place, found)
                    seen.add(namespaces, place, found.values(), addresses)
                    if fingerprints:
                        seen.take_fingerprint(place, found.values(), addresses)
                except VethError as error:
                    seen.fail(place, error)
            slab.short = seen.short
    return seen.survey(Peers(open_namespaces, seen).find())


def inspect(
    open_namespaces: Callable[[], Namespaces],
    links: Iterable[tuple[NetnsRef, str | int, Link | None]],
    refs: Iterable[str] = (),
    *,
    ends_at_home: bool = False,
    may_be_closed: Container[str] = (),
) -> Survey:
    """Read single links, and resolve their references and `refs`.

    A link is (reference, name or ifindex, None), or (reference, ifindex, the Link that it must be). With
    `ends_at_home`, the result has the other ends that are in the home namespace, too. Raises the same errors as
    :func:`survey`, and NetnsNotFound for a closed Netns.
    """
    asked, refs = list(links), list(refs)
    texts = {*refs, *(ref for ref, *_ in asked if isinstance(ref, str))}
    objects: dict[str, HasFileno] = {}
    wanted: dict[str, _Keys] = {}
    for ref, key, link in asked:
        _check_key(key)
        text = ref if isinstance(ref, str) else _as_text(ref, texts, objects)
        _want(wanted.setdefault(text, {}), key, None if link is None else [link])
    for ref in refs:
        wanted.setdefault(ref, {})
    seen = Seen(with_home=bool(wanted.get("")), may_be_closed=may_be_closed, objects=objects)
    for slab in slabs(list(wanted)):
        with open_namespaces() as namespaces:
            keys_in: dict[OpenNetns, _Keys] = {}
            for ref, place in seen.open(namespaces, slab):
                if wanted[ref] and place not in keys_in:
                    keys_in[place] = dict(wanted[ref])
                    continue
                for key, meant in wanted[ref].items():
                    _want(keys_in[place], key, meant)
            namespaces.open_sockets(keys_in)
            for place, keys in keys_in.items():
                try:
                    found = _links(namespaces, place, keys)
                    seen.add(namespaces, place, found.values(), _addresses(namespaces, place, found))
                except VethError as error:
                    seen.fail(place, error)
            slab.short = seen.short
            if len(slab) == len(wanted) and not slab.short:  # all are still open
                return _inspected(lambda: nullcontext(namespaces), seen, ends_at_home=ends_at_home)
    return _inspected(open_namespaces, seen, ends_at_home=ends_at_home)


def _want(keys: _Keys, key: str | int, meant: list[Link] | None) -> None:
    """Add a link to those to be read."""
    known = keys.setdefault(key, meant)
    keys[key] = None if known is None or meant is None else known if known is meant else [*known, *meant]


def _inspected(open_namespaces: _Opener, seen: Seen, *, ends_at_home: bool) -> Survey:
    if not seen.links:
        return seen.survey({})
    peers = Peers(open_namespaces, seen).find()
    if ends_at_home:
        _add_all_ends_at_home(open_namespaces, seen, peers)
    return seen.survey(peers)


def _add_all_ends_at_home(open_namespaces: _Opener, seen: Seen, peers: dict[LinkAt, LinkAt]) -> None:
    """Add the other ends that are in the home namespace, which the kernel reports and no tenant can forge."""
    lone: dict[Identity, list[Link]] = {}
    for at, (link, _) in seen.links.items():
        if link.peer_netnsid is not None and at not in peers:
            lone.setdefault(at[0], []).append(link)
    if not lone:
        return
    for slab in slabs([identity for identity in lone if identity not in seen.failed]):
        with open_namespaces() as namespaces:
            for identity in slab:
                if identity == namespaces.home.identity:
                    continue
                try:
                    place = namespaces(seen.reference(identity))
                    namespaces.cookie(place)
                    is_same = place.is_still((identity, seen.cookies[identity]))
                    ends = _ends_at_home(namespaces, place, lone[identity]) if is_same else {}
                except VethError as error:
                    slab.short = slab.short or is_exhaustion(error)
                    seen.failed[identity] = error
                    continue
                seen.failed.pop(identity, None)
                if ends:
                    # Errors of home are raised, because they are not those of this namespace.
                    _add_ends_at_home(namespaces, identity, ends, seen, peers)


def _ends_at_home(namespaces: Namespaces, place: OpenNetns, lone: Sequence[Link]) -> dict[int, Link]:
    """Return the links of a namespace whose other end is in the home namespace, by the ifindex of that end."""
    nsid = nsid_of_home(namespaces, place)
    if nsid is None:
        return {}
    return {link.peer_index: link for link in lone if link.peer_index and link.peer_netnsid == nsid}


def _add_ends_at_home(
    namespaces: Namespaces, identity: Identity, ends: Mapping[int, Link], seen: Seen, peers: dict[LinkAt, LinkAt]
) -> None:
    """Add links of the home namespace that are the other ends of these links in the namespace `identity`."""
    home = namespaces.home
    found = _links(namespaces, home, dict.fromkeys(ends))
    seen.ref_of.setdefault(home.identity, "")
    seen.add(namespaces, home, found.values(), _addresses(namespaces, home, found))
    for index in found:
        a, b = (identity, ends[index].index), (home.identity, index)
        if seen.links[b][0].peer_index == a[1]:
            peers[a], peers[b] = b, a


def _as_text(ref: HasFileno | None, texts: Container[str], objects: dict[str, HasFileno]) -> str:
    """Return the text for a reference in the result; note an open namespace under its own text.

    The text of a Netns may lead elsewhere by now; then it belongs to another reference. Raises NetnsNotFound.
    """
    if ref is None:
        return ""
    number, text = f"fd:{number_of(ref)}", text_of(ref)
    if text in texts or objects.get(text, ref) is not ref:
        text = number
    objects[text] = ref
    return text


def _check_key(key: str | int) -> None:
    if isinstance(key, str):
        check_lookup_name(key)
    elif type(key) is not int or not 0 < key <= 0x7FFF_FFFF:
        raise InvalidValue("links", key, "give the name of a link, or its ifindex: a number from 1 to 2147483647")


def _links(namespaces: Namespaces, place: OpenNetns, keys: _Keys) -> dict[int, LinkMessage]:
    """Return those of the links that exist, by ifindex. A link that was found by name is not read again by ifindex."""
    found: dict[int, LinkMessage] = {}
    names, indexes = [], set()
    for key in keys:
        if isinstance(key, int):
            indexes.add(key)
        else:
            names.append(key)
    if names:
        _ask(namespaces, place, names, found)
    if rest := indexes - found.keys():
        by_index: dict[int, LinkMessage] = {}
        _ask(namespaces, place, sorted(rest), by_index)
        for index, link in by_index.items():
            meant = keys[index]
            if meant is None or not all(is_another_in(namespaces, place, seen, link) for seen in meant):
                found[index] = link
    return found


def _ask(namespaces: Namespaces, place: OpenNetns, keys: Sequence[str | int], found: dict[int, LinkMessage]) -> None:
    """Add those of the links that exist."""
    requests = [get_link(key) if isinstance(key, int) else get_named(key) for key in keys]
    for key, outcome in zip(keys, namespaces.ask_all(place, requests), strict=True):
        if outcome.errno == errno.ENODEV:
            continue
        if outcome.errno:
            raise not_found(outcome, str(key), place.ref)
        message = read_body(place, outcome, parse_link)
        found[message.ifindex] = message


def _addresses(namespaces: Namespaces, place: OpenNetns, indexes: dict[int, LinkMessage]) -> list[AddrMessage]:
    if len(indexes) > _FEW:
        addresses = address_messages_if_whole(namespaces, place)
        if addresses is not None:
            return [address for address in addresses if address.ifindex in indexes]
    # The addresses of one link arrive in one datagram, so they are never torn. While the IPv6 addresses of thousands of
    # links become usable (duplicate address detection), no dump of all addresses would be whole.
    return [address for index in indexes for address in address_messages(namespaces, place, index)]


def _all_addresses(namespaces: Namespaces, place: OpenNetns, indexes: dict[int, LinkMessage]) -> list[AddrMessage]:
    """Do the same as :func:`_addresses`, for every link in `place`."""
    return _addresses(namespaces, place, indexes) if len(indexes) > _FEW else address_messages(namespaces, place)
