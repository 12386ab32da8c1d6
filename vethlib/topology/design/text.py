"""The compact text form of a topology.

    client -- r1 -- r2 -- server          # a chain of wires; naming a node creates it
    r1 -- r3  mtu=1400 ipv6=off           # attributes apply to every wire of the statement
    r1 -- r2  delay=20ms loss=1%/0        # from left to right / from right to left, or for both directions
    a:wan0(10.0.0.1/24, fd00::1/64) -- b  # a port: node[:link][(addresses)]; "()": no addresses
    a(default via 10.0.0.2) -- b          # routes and neighbours over the link are listed with its addresses
    a -- b  txqlen=500 alias=x/y          # fields of both links, or of the left and the right one (ends.py)
    switch s1 s2                          # a kind (switch, router, node) and the nodes of this kind

Statements are separated by newlines or ";". "#" starts a comment. The name of a node has 1 to 64 letters, digits, "_",
"." and "-", starts with a letter or digit, and does not contain "--". The "--" of a wire has spaces around it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar, get_args

from vethlib.errors import InvalidValue
from vethlib.links import check_addresses, check_mtu, check_name

from .description import Description, Kind, Member, Port, Wire
from .ends import ENDS, is_end_attribute, listed_fields, read_ends
from .impairment import IMPAIRMENTS, Impairment, parse_directions

__all__ = ["check_node_name", "parse"]

T = TypeVar("T")
V = TypeVar("V")

_KINDS: tuple[Kind, ...] = get_args(Kind)
_COMMENT = re.compile(r"#[^\r\n]*")  # str.splitlines would also end it at U+2028, a form feed and the like
_NODE = re.compile(r"[A-Za-z0-9](?:[\w.]|-(?!-)){0,63}", re.ASCII)
_ATTRIBUTE = re.compile(r"([\w.]+)=(\S*)")
_PORT = re.compile(r"(?P<node>[^\s:()]+)(?::(?P<link>[^\s()]*))?(?:\s*\((?P<addresses>[^()]*)\))?")
_GLUED = re.compile(r"(?:^|\s)[^\s:(]*--")  # not after a colon: the name of a link may contain "--"
# Leading whitespace is matched once, not from each space, which would take quadratic time.
_WIRE = re.compile(r"(?:^|(?<!\s)\s+)--(?=\s|$)")


def parse(text: str) -> Description:
    """Parse a description. Raises InvalidValue (field "topology"), with the line, the statement and the reason."""
    kinds: dict[str, Kind] = {}
    mentioned: dict[str, None] = {}
    wires: list[Wire] = []
    for statement in _statements(text):
        first, *names = statement.text.split()
        if first in _KINDS and names and "--" not in names:
            _declare(statement, first, names, kinds)
            mentioned |= dict.fromkeys(names)
        else:
            ports, attributes = statement.ports()
            mentioned |= dict.fromkeys(port.node for port in ports)
            left, right = attributes.pop("ends", ({}, {}))
            attributes["where"] = statement.where
            wires += [Wire(_with(a, left), _with(b, right), **attributes) for a, b in pairwise(ports)]
    return Description(tuple(Member(name, kinds.get(name, "node")) for name in mentioned), tuple(wires))


def check_node_name(name: str) -> str:
    """Return `name` if it is valid for a node. Raises InvalidValue."""
    if not isinstance(name, str) or not _NODE.fullmatch(name):
        hint = (
            'a name must be 1 to 64 letters, digits, "_", "." and "-", with a letter or digit first, and without "--"'
        )
        raise InvalidValue("topology", name, hint)
    return name


def _declare(statement: _Statement, kind: str, names: list[str], kinds: dict[str, Kind]) -> None:
    for name in names:
        statement.checked(check_node_name, name)
        if kinds.setdefault(name, kind) != kind:  # type: ignore[arg-type]
            raise statement.wrong(f"{name} is already a {kinds[name]}: a node can have only one kind")


def _statements(text: str) -> Iterator[_Statement]:
    if not isinstance(text, str):
        raise InvalidValue("topology", text, 'must be text, such as "a -- b", or a Description')
    for number, line in enumerate(_COMMENT.sub("", text).splitlines(), 1):
        for part in line.split(";"):
            if stripped := part.strip():
                yield _Statement(number, stripped)


class _Statement:
    """One statement and its place."""

    def __init__(self, line: int, text: str) -> None:
        self.where = f"line {line}"
        self.text = text

    def wrong(self, hint: str) -> InvalidValue:
        """Return an error about this statement."""
        return InvalidValue("topology", self.text, f"{self.where}: {hint}")

    def ports(self) -> tuple[list[Port], dict[str, Any]]:
        """Return the ports of a chain of wires, and the attributes of the wires."""
        # Runs of spaces are reduced to one; otherwise, each expression would search the rest from every space of a run.
        rest, given = " ".join(self.text.split()), dict[str, str]()
        while " " in rest and (match := _ATTRIBUTE.fullmatch(rest, rest.rindex(" ") + 1)):
            name, value = match.groups()
            if name in given:
                raise self.wrong(f"{name} is given twice: it applies to every wire of the statement")
            given[name] = value
            rest = rest[: match.start() - 1]
        parts = [part.strip() for part in _WIRE.split(rest)]
        ports = [self._port(part) for part in parts]
        if len(ports) < 2:
            hint = f'write a wire as "a -- b", or "{_KINDS[0]} {parts[0]}" for a node without one'
            raise self.wrong(hint if " " not in parts[0] else 'write wires as "a -- b -- c"')
        for a, b in pairwise(ports):
            if a.node == b.node:
                raise self.wrong(f"a wire must connect two different nodes, but this one begins and ends at {a.node}")
        for port in ports[1:-1]:
            if port.link or port.addresses or port.fields:
                hint = "is in the middle of a chain, so this would apply to two links: split it into two statements"
                raise self.wrong(f"{port.node} {hint}")
        if "mac" in given and len(ports) > 2:
            raise self.wrong("mac would apply to several links: split the chain into two statements")
        return ports, self._attributes(given)

    def _attributes(self, given: dict[str, str]) -> dict[str, Any]:
        """Return the values of the attributes, with the impairment of each direction."""
        impairing = {name: given.pop(name) for name in IMPAIRMENTS if name in given}
        of_ends = {name: given.pop(name) for name in list(given) if is_end_attribute(name)}
        values: dict[str, Any] = {name: self._attribute(name, value) for name, value in given.items()}
        if impairing:
            both = {name: self.checked(partial(parse_directions, name), value) for name, value in impairing.items()}
            for number, direction in enumerate(("a_to_b", "b_to_a")):
                values[direction] = self.checked(_impairment, {name: texts[number] for name, texts in both.items()})
        if of_ends:
            values["ends"] = self.checked(read_ends, of_ends)
        return values

    def _attribute(self, name: str, value: str) -> int | bool:
        if name == "mtu":
            if not (value.isascii() and value.isdecimal() and len(value) <= 10):
                raise self.wrong(f"mtu={value} must be a number of bytes, as in mtu=1400")
            return self.checked(check_mtu, int(value))
        if name == "ipv6":
            if value not in ("on", "off"):
                raise self.wrong(f"ipv6={value} must be on or off")
            return value == "on"
        known = f"{', '.join((*IMPAIRMENTS, *ENDS[:-1]))} and {ENDS[-1]}"
        raise self.wrong(f"unknown attribute {name!r}: a wire can have mtu=BYTES, ipv6=on|off, {known}")

    def _port(self, text: str) -> Port:
        if not text:
            raise self.wrong('a node is missing beside "--"')
        if _GLUED.search(text):
            raise self.wrong(f'{text!r}: put a space on either side of "--"')
        match = _PORT.fullmatch(text)
        if match is None:
            raise self.wrong(self._cure(text))
        node, link, listed = match.group("node", "link", "addresses")
        self.checked(check_node_name, node)
        if link is not None:
            self.checked(check_name, link)
        if listed is None:
            return Port(node, link or "")
        items = [part.strip() for part in listed.split(",")] if listed.strip() else []
        addresses, fields = self.checked(listed_fields, items)
        if addresses is None:
            return Port(node, link or "", None, fields)
        return Port(node, link or "", self.checked(check_addresses, addresses), fields)

    def _cure(self, text: str) -> str:
        """Return a hint for an invalid port, which is usually one of a few common slips."""
        first, *others = text.split()
        if others and others[0] in ("-", "->", "<->", "—", "–", "---"):
            return f'{text!r}: a wire is written "--", with a space on either side'
        if others and first in _KINDS:
            return f"{text!r}: declare the kind of a node in a separate statement, on another line or after ';'"
        if others and (meant := get_close_matches(first.lower(), _KINDS, 1)):
            return f"{text!r}: did you mean {' '.join([meant[0], *others])!r}?"
        if match := re.fullmatch(r"(\S+)\s+mtu[\s:]\s*(\d+)", text):
            return f"{text!r}: write the attribute as mtu={match[2]}"
        return f"{text!r} is not a port: write node, node:link or node:link(10.0.0.1/24)"

    def checked(self, check: Callable[[V], T], value: V) -> T:
        """Return the result of `check`; an InvalidValue is raised as an error about this statement."""
        try:
            return check(value)
        except InvalidValue as error:
            raise self.wrong(str(error)) from None


def _with(port: Port, fields: dict[str, Any]) -> Port:
    return replace(port, fields={**port.fields, **fields}) if fields else port


def _impairment(given: dict[str, str]) -> Impairment:
    return Impairment.of(**given)
