"""The record of built pairs, which no tenant can write. Pure; `recordfile` stores it in a file.

The record decides whether a pair without an end in the home namespace is owned, whatever the marks of its ends
(`owned`). Each line of the file is one fact, as a JSON array; later lines win:

    ["vethlib-pairs", 1, LABEL, BOOT, [DEV, INO, COOKIE]]     first: of which agent, boot and home namespace
    ["record", ID, REWRITTEN]                                 second: a random id, and how often the file was rewritten
    ["intent", END, END]                                      about to be created: no ifindex and no MAC yet
    ["pair", END, END]                                        exists; replaces any pair recorded with one of its ends
    ["gone", [DEV, INO], IFINDEX]                             the pair with this end is gone
    ["void", NAME, NAME]                                      the intent for these interfaces was not carried out
    ["addresses", [DEV, INO, COOKIE], IFINDEX, ALL, [TEXT…]]  the agent's addresses on a link; only before Linux 5.18

where END is [NAME, [DEV, INO, COOKIE], IFINDEX, LINK, MAC, GIVEN_MAC, REF]: interface, namespace, ifindex, kernel name,
MAC, whether the MAC was configured, and a reference that led to the namespace. Further elements may follow in any
array; a line that cannot be parsed, such as a torn last line, is skipped. The first version wrote no line "record".
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from vethlib.agent.config.mark import Mark

from .observed import LinkId, NetnsId, SeenLink, is_same_netns

__all__ = [
    "ForeignRecord",
    "GivenAddresses",
    "PairRecord",
    "RecordedEnd",
    "RecordedPair",
    "header",
    "read_header",
    "read_record_id",
    "record_id",
]

_FORMAT: Final = 1
_LOST: Final = 512  # pairs that are kept although they were not found where they were recorded
_LOST_OF_ONE: Final = 2  # such pairs for the same two interfaces
_Key = tuple[LinkId, LinkId]
_encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class RecordedEnd:
    """One end of a pair that was built for the interface `name` ("" if that is not known).

    `cookie` identifies its namespace among all since the boot; 0 if the kernel does not support it. In an intent,
    `index` is 0 and `mac` is empty. `id` is the identity of the link on the host.
    """

    name: str
    place: NetnsId
    cookie: int
    index: int = 0
    link: str = ""
    mac: str = ""
    given_mac: bool = False
    ref: str = ""
    id: LinkId = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", (self.place, self.index))

    def mark(self, label: str) -> Mark | None:
        """Return the mark for its alias; None if it is unknown which interface it was built for."""
        return Mark(label, self.name, self.given_mac) if self.name else None

    def _line(self) -> list[Any]:
        netns = [*self.place, self.cookie]
        return [self.name, netns, self.index, self.link, self.mac, int(self.given_mac), self.ref]


@dataclass(frozen=True, slots=True)
class RecordedPair:
    """A pair: its two `ends`, the `names` of the interfaces that it was built for, and the identities of its links.

    `key` has the identities in the order of the ends.
    """

    a: RecordedEnd
    b: RecordedEnd
    ends: tuple[RecordedEnd, RecordedEnd] = field(init=False, repr=False, compare=False)
    names: frozenset[str] = field(init=False, repr=False, compare=False)
    key: _Key = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ends", (self.a, self.b))
        object.__setattr__(self, "names", frozenset((self.a.name, self.b.name)))
        object.__setattr__(self, "key", (self.a.id, self.b.id))

    def is_at(self, place: NetnsId | None) -> bool:
        """Return whether an end of it is in this namespace."""
        return place is not None and place in (self.a.place, self.b.place)

    def is_within(self, place: NetnsId | None) -> bool:
        """Return whether both ends of it are in this namespace."""
        return self.a.place == self.b.place == place


@dataclass(frozen=True, slots=True)
class GivenAddresses:
    """The addresses that the agent has given to a link, as text, where the kernel does not mark them.

    `all_known` is whether these are all since the link was created; if not, it may have more of them. `cookie` is that
    of its namespace.
    """

    addresses: frozenset[str] = frozenset()
    all_known: bool = False
    cookie: int = 0


class PairRecord:
    """The whole record, in memory.

    `adopts` is true if there was no record before: then a pair with the right marks on both ends may be owned, too.
    `foreign` are the records of agents of the same label with other home namespaces, in case that such a pair, or one
    of which only one end is seen, is theirs; None if they were not needed, or if no record is kept at all, so that
    marks have to suffice.
    """

    def __init__(self, *, adopts: bool = True) -> None:
        self.adopts = adopts
        self.foreign: Sequence[ForeignRecord] | None = None
        self._pairs: dict[_Key, RecordedPair] = {}  # in the order in which they were recorded
        self._at: dict[LinkId, RecordedPair] = {}  # by each end, unless another pair was found there since
        self._named: dict[str, dict[_Key, RecordedPair]] = {}
        self._with_macs: dict[frozenset[str], RecordedPair] = {}  # those whose MACs the kernel has chosen
        self._lost: dict[_Key, None] = {}  # in the order in which they were missed
        self._intents: dict[frozenset[str], RecordedPair] = {}
        self._intended: dict[
            tuple[NetnsId, str], dict[frozenset[str], RecordedPair]
        ] = {}  # under both names of each end
        self._given: dict[LinkId, GivenAddresses] = {}
        self.facts = 0
        """The number of lines in its file."""

    # --- reading

    def __len__(self) -> int:
        return len(self._pairs)

    def __iter__(self) -> Iterator[RecordedPair]:
        """Yield every recorded pair once."""
        return iter(self._pairs.values())

    def at(self, end: LinkId) -> tuple[RecordedEnd, RecordedEnd] | None:
        """Return the recorded pair with this end, that end first."""
        pair = self._at.get(end)
        if pair is None:
            return None
        return (pair.a, pair.b) if pair.a.id == end else (pair.b, pair.a)

    def of(self, name: str) -> Iterable[RecordedPair]:
        """Return the pairs that were built for an interface."""
        return self._named.get(name, {}).values()

    def with_macs(self, a: str, b: str) -> RecordedPair | None:
        """Return the pair whose ends got these MACs from the kernel, at random."""
        return self._with_macs.get(frozenset((a, b)))

    def ends_of(self, pair: RecordedPair) -> list[RecordedEnd]:
        """Return the ends of a recorded pair that may still be where they were: no other pair was found there since."""
        return [end for end in pair.ends if self._at.get(end.id) is pair]

    @property
    def size(self) -> int:
        """The number of facts that count."""
        return len(self._pairs) + len(self._intents) + len(self._given)

    def given_at(self, end: LinkId) -> GivenAddresses | None:
        """Return the addresses that the agent has given to a link; None if that is not known."""
        return self._given.get(end)

    def links_given(self) -> Iterable[LinkId]:
        """Return the links whose given addresses are recorded."""
        return self._given.keys()

    def intents(self) -> Collection[RecordedPair]:
        """Return the pairs that were about to be created, and were not recorded since."""
        return self._intents.values()

    def intents_at(self, place: NetnsId, name: str) -> Iterable[RecordedPair]:
        """Return the intended pairs with an end in this namespace for an interface, or a link, of this name."""
        return self._intended.get((place, name), {}).values()

    def intent_for(self, names: frozenset[str]) -> RecordedPair | None:
        """Return the intended pair between these two interfaces."""
        return self._intents.get(names)

    # --- changing

    def intend(self, pair: RecordedPair) -> str:
        """Note that a pair is about to be created; return the line for a file, as all these methods do."""
        self._take_back(pair.names)
        self._intents[pair.names] = pair
        for key in _keys(pair):
            self._intended.setdefault(key, {})[pair.names] = pair
        return self._fact("intent", pair.a._line(), pair.b._line())

    def add(self, pair: RecordedPair) -> str:
        """Note that a pair exists.

        If another pair was recorded with one of its ends, that end was moved away, and the other end may be where it
        was. If the name and the MAC of the end are the same, it is the same pair, whose other end was moved.
        """
        for end in pair.ends:
            before = self._at.pop(end.id, None)
            if before is None:
                continue
            was = before.a if before.a.id == end.id else before.b
            if (was.name, was.mac) == (end.name, end.mac) or not self.ends_of(before):
                self._drop(before)
        self._take_back(pair.names)
        self._pairs[pair.key] = pair
        if (macs := _random_macs(pair)) is not None:
            self._with_macs[macs] = pair
        for end in pair.ends:
            self._at[end.id] = pair
            if end.name:
                self._named.setdefault(end.name, {})[pair.key] = pair
        return self._fact("pair", pair.a._line(), pair.b._line())

    def forget(self, end: LinkId) -> str:
        """Note that the pair with this end is gone; return "" if it was not recorded."""
        pair = self._at.get(end)
        if pair is None:
            return ""
        self._drop(pair)
        return self._fact("gone", list(end[0]), end[1])

    def find(self, end: LinkId) -> None:
        """Note that the pair with this end is where it was recorded."""
        if self._lost and (pair := self._at.get(end)) is not None:
            self._lost.pop(pair.key, None)

    def lose(self, pair: RecordedPair) -> Iterator[str]:
        """Note that a pair is not where it was: it was deleted, or both ends were moved.

        If there are many such pairs, the oldest are forgotten: a tenant may delete a pair as often as it is built
        again, and interfaces may have new names all the time.
        """
        self._lost.setdefault(pair.key)
        lost = (other for other in self.of(pair.a.name or pair.b.name) if other.key in self._lost)
        alike = [other for other in lost if other.names == pair.names]
        for other in alike[:-_LOST_OF_ONE]:
            yield self.forget(self.ends_of(other)[0].id)
        while len(self._lost) > _LOST:
            yield self.forget(self.ends_of(self._pairs[next(iter(self._lost))])[0].id)

    def void(self, names: frozenset[str]) -> str:
        """Note that the intent for these interfaces was not carried out; return "" if there is none."""
        if not self._take_back(names):
            return ""
        return self._fact("void", *sorted(names))

    def give(self, end: LinkId, given: GivenAddresses | None) -> str:
        """Note which addresses the agent has given to a link; None if that is no longer known."""
        if given is None:
            if self._given.pop(end, None) is None:
                return ""
            given = GivenAddresses()
        else:
            self._given[end] = given
        return self._fact(*_given_line(end, given))

    def _take_back(self, names: frozenset[str]) -> bool:
        """Remove the intent for these interfaces, and return whether there was one."""
        pair = self._intents.pop(names, None)
        if pair is None:
            return False
        for key in _keys(pair):
            intended = self._intended[key]
            intended.pop(names, None)
            if not intended:
                del self._intended[key]
        return True

    def _drop(self, pair: RecordedPair) -> None:
        del self._pairs[pair.key]
        self._lost.pop(pair.key, None)
        if (macs := _random_macs(pair)) is not None and self._with_macs.get(macs) is pair:
            del self._with_macs[macs]
        for end in self.ends_of(pair):
            del self._at[end.id]
            self._given.pop(end.id, None)
        for name in pair.names:
            pairs = self._named.get(name, {})
            pairs.pop(pair.key, None)
            if not pairs:
                self._named.pop(name, None)

    def _fact(self, *fact: Any) -> str:
        self.facts += 1
        return _encode(fact) + "\n"

    # --- as text

    def lines(self) -> Iterator[str]:
        """Yield the whole record, in as few lines as possible."""
        for pair in self:
            yield _encode(("pair", pair.a._line(), pair.b._line())) + "\n"
        for pair in self._intents.values():
            yield _encode(("intent", pair.a._line(), pair.b._line())) + "\n"
        for end, given in self._given.items():
            yield _encode(_given_line(end, given)) + "\n"

    def read(self, lines: Iterable[str]) -> None:
        """Apply these lines; skip those that cannot be parsed."""
        for line in lines:
            try:
                self._read(json.loads(line))
            except (ValueError, TypeError, KeyError, IndexError, RecursionError):
                continue

    def _read(self, fact: list[Any]) -> None:
        match fact[0]:
            case "pair":
                self.add(RecordedPair(_end(fact[1]), _end(fact[2])))
            case "intent":
                self.intend(RecordedPair(_end(fact[1]), _end(fact[2])))
            case "gone":
                dev, ino = fact[1]
                self.forget(((int(dev), int(ino)), int(fact[2])))
            case "addresses":
                (dev, ino, cookie), index, all_known, addresses = fact[1:5]
                given = GivenAddresses(frozenset(map(str, addresses)), bool(all_known), int(cookie))
                self.give(((int(dev), int(ino)), int(index)), given if given != GivenAddresses() else None)
            case "void":
                self.void(frozenset((str(fact[1]), str(fact[2]))))


@dataclass(frozen=True, slots=True)
class ForeignRecord:
    """The record of another agent of the same label, whose home namespace is `home` with this cookie."""

    home: NetnsId
    cookie: int
    record: PairRecord

    def claims(self, end: SeenLink) -> bool:
        """Return whether a link is in that home namespace, or an end of a pair that is recorded or intended."""
        if is_same_netns(self.home, self.cookie, end.place, end.cookie):
            return True
        if (known := self.record.at(end.id)) is not None:
            return is_same_netns(known[0].place, known[0].cookie, end.place, end.cookie)
        return bool(self.record.intents_at(end.place, end.link.name))


def _random_macs(pair: RecordedPair) -> frozenset[str] | None:
    """Return the MACs of both ends; None if they may be those of other pairs."""
    a, b = pair.ends
    if a.given_mac or b.given_mac or not (a.mac and b.mac) or a.mac == b.mac:
        return None
    return frozenset((a.mac, b.mac))


def _keys(pair: RecordedPair) -> set[tuple[NetnsId, str]]:
    return {(end.place, name) for end in pair.ends for name in (end.name, end.link)}


def _given_line(end: LinkId, given: GivenAddresses) -> tuple[Any, ...]:
    place, index = end
    return "addresses", [*place, given.cookie], index, int(given.all_known), sorted(given.addresses)


def header(label: str, boot: str, place: NetnsId, cookie: int) -> str:
    """Return the first line of the file: a file with another first line does not describe this host as it is now."""
    return _encode(("vethlib-pairs", _FORMAT, label, boot, [*place, cookie])) + "\n"


def record_id(random: str, rewritten: int) -> str:
    """Return the second line of the file. All files with one id have the same record: each has what those before had.

    It is a line of its own, because older versions compare the whole first line.
    """
    return _encode(("record", random, rewritten)) + "\n"


@lru_cache(maxsize=16)  # each observation and each write reads the same line
def read_record_id(line: str) -> tuple[str, int]:
    """Return the id of a record, and how often its file was rewritten; "" and 0 if this is another line."""
    try:
        match json.loads(line):
            case ["record", str(random), int(rewritten), *_]:
                return random, rewritten
    except (ValueError, RecursionError):
        pass
    return "", 0


def read_header(line: str, label: str, boot: str) -> tuple[NetnsId, int] | None:
    """Return the home namespace of a record of this label and boot, and its cookie; None for any other first line."""
    try:
        dev, ino, cookie = json.loads(line)[4]
        place = int(dev), int(ino)
        return (place, int(cookie)) if line == header(label, boot, place, int(cookie)) else None
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return None


def _end(line: list[Any]) -> RecordedEnd:
    name, (dev, ino, cookie), index, link, mac, given_mac, ref = line[:7]
    place = int(dev), int(ino)
    return RecordedEnd(str(name), place, int(cookie), int(index), str(link), str(mac), bool(given_mac), str(ref))
