"""The compact description of a topology, from text.

    client -- r1 -- r2 -- server          # a chain of wires; a node is made by being named
    r1 -- r3  mtu=1400                    # attributes of every wire of the statement
    a:wan0(10.0.0.1/24, fd00::1/64) -- b  # a port: node[:link][(addresses)]; "()" is none
    switch s1 s2                          # kinds: switch, router, node, and whose they are

A statement is a line, or what is between ";"; "#" begins a comment. The names of nodes are 1 to 64 letters, digits,
"_", "." and "-", the first of which is a letter or digit, without "--". Around the "--" of a wire are spaces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from itertools import pairwise
from typing import TypeVar, get_args

from ..errors import InvalidValue
from ..links import check_addresses, check_mtu, check_name
from .description import Description, Kind, Member, Port, Wire

__all__ = ["check_node_name", "parse"]

T = TypeVar("T")
V = TypeVar("V")

_KINDS: tuple[Kind, ...] = get_args(Kind)
_NODE = re.compile(r"[A-Za-z0-9](?:[\w.]|-(?!-)){0,63}", re.ASCII)
_ATTRIBUTE = re.compile(r"\s+(\w+)=(\S*)\s*$")
_PORT = re.compile(r"(?P<node>[^\s:()]+)(?::(?P<link>[^\s()]*))?(?:\s*\((?P<addresses>[^()]*)\))?")
_GLUED = re.compile(r"(?:^|\s)[^\s:(]*--")  # in the name of a link it may be
_WIRE = re.compile(r"(?:^|\s+)--(?=\s|$)")


def parse(text: str) -> Description:
    """Read a description. InvalidValue (field "topology") names the line, the statement and what is wrong with it."""
    kinds: dict[str, Kind] = {}
    mentioned: dict[str, None] = {}
    wires: list[Wire] = []
    for statement in _statements(text):
        first, *names = statement.text.split()
        if first in _KINDS and names and "--" not in names:
            _declare(statement, first, names, kinds)
            mentioned |= dict.fromkeys(names)
        else:
            ports, mtu = statement.ports()
            mentioned |= dict.fromkeys(port.node for port in ports)
            wires += [Wire(a, b, mtu) for a, b in pairwise(ports)]
    return Description(tuple(Member(name, kinds.get(name, "node")) for name in mentioned), tuple(wires))


def check_node_name(name: str) -> str:
    """Return `name` if a node can have it; InvalidValue otherwise."""
    if not isinstance(name, str) or not _NODE.fullmatch(name):
        hint = 'a node has a name of 1 to 64 letters, digits, "_", "." and "-", a letter or digit first, and no "--"'
        raise InvalidValue("topology", name, hint)
    return name


def _declare(statement: _Statement, kind: str, names: list[str], kinds: dict[str, Kind]) -> None:
    for name in names:
        statement.checked(check_node_name, name)
        if kinds.setdefault(name, kind) != kind:  # type: ignore[arg-type]
            raise statement.wrong(f"{name} is a {kinds[name]} already: a node is of one kind")


def _statements(text: str) -> Iterator[_Statement]:
    if not isinstance(text, str):
        raise InvalidValue("topology", text, 'describe it by text, "a -- b", or by a Description')
    for number, line in enumerate(text.splitlines(), 1):
        for part in line.partition("#")[0].split(";"):
            if stripped := part.strip():
                yield _Statement(number, stripped)


class _Statement:
    """One statement and where it is."""

    def __init__(self, line: int, text: str) -> None:
        self.line = line
        self.text = text

    def wrong(self, hint: str) -> InvalidValue:
        """The error that something in this statement is."""
        return InvalidValue("topology", self.text, f"line {self.line}: {hint}")

    def ports(self) -> tuple[list[Port], int | None]:
        """The ports of a chain of wires, and the MTU of the wires."""
        rest, mtu = self.text, None
        while found := _ATTRIBUTE.search(rest):
            name, value = found.groups()
            if name != "mtu":
                raise self.wrong(
                    f"there is no attribute {name!r}: what a wire can have is mtu=BYTES (others: tc, by node.run)"
                )
            if mtu is not None:
                raise self.wrong("mtu is given twice: give it once, it is of every wire of the statement")
            if not (value.isascii() and value.isdecimal()):
                raise self.wrong(f"mtu={value}: write a number of bytes, mtu=1400")
            mtu = self.checked(check_mtu, int(value))
            rest = rest[: found.start()]
        parts = [part.strip() for part in _WIRE.split(rest)]
        ports = [self._port(part) for part in parts]
        if len(ports) < 2:
            hint = f'write a wire as "a -- b", or "{_KINDS[0]} {parts[0]}" for a node without one'
            raise self.wrong(hint if " " not in parts[0] else 'write wires as "a -- b -- c"')
        for a, b in pairwise(ports):
            if a.node == b.node:
                raise self.wrong(f"a wire is between two nodes, this one begins and ends at {a.node}")
        for port in ports[1:-1]:
            if port.link or port.addresses:
                hint = "is in the middle of a chain, so that this would be of two links: make it two statements"
                raise self.wrong(f"{port.node} {hint}")
        return ports, mtu

    def _port(self, text: str) -> Port:
        if not text:
            raise self.wrong('there is no node beside a "--"')
        if _GLUED.search(text):
            raise self.wrong(f'{text!r}: put a space on either side of "--"')
        found = _PORT.fullmatch(text)
        if found is None:
            raise self.wrong(self._cure(text))
        node, link, listed = found.group("node", "link", "addresses")
        self.checked(check_node_name, node)
        if link is not None:
            self.checked(check_name, link)
        if listed is None:
            return Port(node, link or "")
        addresses = self.checked(check_addresses, [one.strip() for one in listed.split(",")] if listed.strip() else [])
        return Port(node, link or "", addresses)

    def _cure(self, text: str) -> str:
        """What is to be said of a port that is none: by far the most are one of a few slips."""
        first, *others = text.split()
        if others and others[0] in ("-", "->", "<->", "—", "–", "---"):
            return f'{text!r}: a wire is written "--", with a space on either side'
        if others and first in _KINDS:
            return f"{text!r}: write what kind a node is as a statement of its own, on another line or behind ';'"
        if others and (meant := get_close_matches(first.lower(), _KINDS, 1)):
            return f"{text!r}: do you mean {' '.join([meant[0], *others])!r}?"
        if found := re.fullmatch(r"(\S+)\s+mtu[\s:]\s*(\d+)", text):
            return f"{text!r}: write the attribute as mtu={found[2]}"
        return f"{text!r} is no port: write node, node:link or node:link(10.0.0.1/24)"

    def checked(self, check: Callable[[V], T], value: V) -> T:
        """What `check` makes of a value; what it refuses is told as this statement's."""
        try:
            return check(value)
        except InvalidValue as error:
            raise self.wrong(str(error)) from None
