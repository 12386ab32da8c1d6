"""The pytest plugin: network namespaces and veth pairs as fixtures.

vethlib is imported inside the fixtures only, so that a test run that uses none of them does not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import pytest

if TYPE_CHECKING:
    from vethlib import Session
    from vethlib.nodes import Node

__all__ = ["Connected", "NetnsFactory", "VethFactory"]


class Connected(NamedTuple):
    """Two nodes joined by a veth pair; each has a link called eth0 with addresses."""

    a: Node
    b: Node


NetnsFactory: TypeAlias = "Callable[[], Node]"
VethFactory: TypeAlias = Callable[[], Connected]


@pytest.fixture(scope="session")
def netns_session() -> Iterator[Session]:
    """A vethlib Session whose home is the test process's own namespace."""
    from vethlib import Session

    with Session() as session:
        yield session


@pytest.fixture
def netns_factory(netns_session: Session) -> Iterator[NetnsFactory]:
    """Call it for a node: a fresh anonymous namespace with its loopback up. All end with the test."""
    from vethlib import NotPermitted
    from vethlib.nodes import Node

    nodes: list[Node] = []

    def make() -> Node:
        try:
            node = Node(f"node{len(nodes)}", netns_session)
        except NotPermitted as error:
            pytest.skip(f"{error}; run as root, or inside `unshare -Urn`")
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.close()


@pytest.fixture
def netns(netns_factory: NetnsFactory) -> Node:
    """A node of its own: a fresh anonymous namespace with its loopback up."""
    return netns_factory()


@pytest.fixture
def veth_factory(netns_factory: NetnsFactory, netns_session: Session) -> VethFactory:
    """Call it for two more nodes, joined by a veth pair with addresses: 10.0.N.1 and 10.0.N.2, fd00:N::1 and ::2."""
    from vethlib import End, Veth

    numbers = count()

    def make() -> Connected:
        number = next(numbers)
        a, b = netns_factory(), netns_factory()
        ends = [
            End("eth0", node.netns, addresses=[f"10.0.{number}.{host}/24", f"fd00:{number:x}::{host}/64"])
            for host, node in ((1, a), (2, b))
        ]
        netns_session.create(Veth(*ends))
        return Connected(a, b)

    return make


@pytest.fixture
def veth(veth_factory: VethFactory) -> Connected:
    """Two nodes joined by a veth pair: ``a, b = veth``."""
    return veth_factory()
