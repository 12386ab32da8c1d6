"""A wire of a running topology: what happens to its packets, read and changed at run time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Unpack

from vethlib.errors import InvalidValue
from vethlib.ns import Netns
from vethlib.topology.design.description import Port, Wire
from vethlib.topology.design.impairment import Impairment, Impairments
from vethlib.topology.impair import netem

from .node import Node

if TYPE_CHECKING:
    from vethlib.topology.impair.relay import Relay

__all__ = ["LiveWire", "as_described"]


@dataclass(frozen=True, slots=True, eq=False)
class LiveWire(Wire):
    """A wire between two nodes, which can be impaired: ``net.wire("a", "b").set(delay="20ms", loss="1%")``.

    `a_to_b` and `b_to_a` are the impairments in the description; :meth:`impairment` returns the present ones. Packets
    are impaired as they leave a node, so those that the node itself counts and captures are not impaired yet.
    """

    _number: int = field(default=0, repr=False)
    _is_turned: bool = field(default=False, repr=False)  # `a` is the second port of the description
    _namespaces: Mapping[str, Netns] = field(default_factory=dict, repr=False)
    _relay: Relay | None = field(default=None, repr=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Wire) and _compared(self) == _compared(other)

    def __hash__(self) -> int:
        return hash(_compared(self))

    def impairment(self, towards: str | Node) -> Impairment:
        """Return the present impairment of packets towards a node at one of the ends. Raises NetlinkError."""
        return self._read(self._port(towards))

    def set(self, *, towards: str | Node | None = None, **values: Unpack[Impairments]) -> None:
        """Change what happens to packets from now on, in both directions or only `towards` a node.

        Values that are not given stay as they are. See :meth:`~vethlib.topology.Impairment.of` for their forms.

        Raises InvalidValue, ImpairmentNotSupported, LinkNotFound, NetlinkError.
        """
        self._change(towards, lambda present: present.changed(values))

    def clear(self, *, towards: str | Node | None = None) -> None:
        """End all impairment, in both directions or only `towards` a node. Raises LinkNotFound, NetlinkError."""
        self._change(towards, lambda _: Impairment())

    def _change(self, towards: str | Node | None, change: Callable[[Impairment], Impairment]) -> None:
        """Change each direction, unless one of them cannot be read."""
        changed = [(port, change(self._read(port))) for port in self._ports(towards)]
        for port, impairment in changed:
            self._write(port, impairment)

    def _ports(self, towards: str | Node | None) -> tuple[Port, ...]:
        return (self.b, self.a) if towards is None else (self._port(towards),)

    def _port(self, towards: str | Node) -> Port:
        name = towards.name if isinstance(towards, Node) else towards
        for port in (self.a, self.b):
            if port.node == name and (not isinstance(towards, Node) or self._namespaces[name] is towards.netns):
                return port
        hint = f"must be an end of this wire: {self.a.node} or {self.b.node}"
        if isinstance(towards, Node) and name in self._namespaces:
            hint += f" of its own topology, but this is node {name} of another"
        raise InvalidValue("towards", name, hint)

    def _read(self, to: Port) -> Impairment:
        if self._relay is not None and self._number in self._relay:
            return self._relay.get(self._number, to_b=self._is_second(to))
        start = self._opposite(to)
        return netem.read(start.node, self._namespaces[start.node], start.link)

    def _write(self, to: Port, impairment: Impairment) -> None:
        if self._relay is not None and self._number in self._relay:
            self._relay.set(self._number, impairment, to_b=self._is_second(to))
            return
        start = self._opposite(to)
        netem.write(start.node, self._namespaces[start.node], start.link, impairment)

    def _opposite(self, port: Port) -> Port:
        return self.a if port is self.b else self.b

    def _is_second(self, port: Port) -> bool:
        """Return whether a port is the second port of the wire in its description."""
        return (port is self.b) != self._is_turned


def as_described(wire: Wire) -> dict[str, Any]:
    """Return the fields of a wire by name."""
    return {each.name: getattr(wire, each.name) for each in fields(Wire)}


def _compared(wire: Wire) -> tuple[Any, ...]:
    """Return the values by which wires are distinguished."""
    return tuple(getattr(wire, each.name) for each in fields(Wire) if each.compare)
