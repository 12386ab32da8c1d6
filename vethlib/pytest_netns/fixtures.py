"""The fixtures, one set for each scope: netns, veth and topology, class_netns, module_netns and so on.

vethlib.topology is imported when the first fixture is requested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypedDict, Unpack

import pytest

from .isolation.enter import ISOLATION
from .live import LIVE
from .names import SCOPES, base_of
from .options import SETTINGS

if TYPE_CHECKING:
    from vethlib import Session
    from vethlib.topology import Description, Node, Topology

__all__ = ["Connected", "NetnsFactory", "TopologyFactory", "VethFactory", "make_fixtures"]


class Connected(NamedTuple):
    """Two nodes connected by a veth pair; each has a link called eth0 with addresses."""

    a: Node
    b: Node


class NetnsFactory(Protocol):
    """Call it to create another node: a new anonymous namespace with its loopback up."""

    def __call__(self, name: str = "") -> Node:
        """Create a node; without `name`, it is called node0, node1, …"""


class VethFactory(Protocol):
    """Call it to create two more nodes, connected by a veth pair with addresses."""

    def __call__(self) -> Connected:
        """Create nodes a and b: the N-th pair (from 0) has 10.0.N.1 and .2, fd00:N::1 and ::2."""


class _Options(TypedDict, total=False):
    ipv4: bool
    ipv6: bool
    routes: bool
    first: int
    hosts: bool
    resolv_conf: str | None
    impair: Literal["kernel", "userspace"] | None
    prepare: Callable[[Mapping[str, Node]], object] | None


class TopologyFactory:
    """Call it to build a topology, or use the methods for ready-made shapes; each can be called repeatedly.

    The arguments are those of :meth:`vethlib.topology.Topology.build`, and those of the shapes in
    :mod:`vethlib.topology.design.shapes`.
    """

    def __init__(self, scope: _Scope) -> None:
        self._scope = scope

    def __call__(
        self,
        description: str | Sequence[str] | Description,
        *,
        ipv4: bool = True,
        ipv6: bool = True,
        routes: bool = False,
        first: int = 0,
        mtu: int | None = None,
        hosts: bool = False,
        resolv_conf: str | None = None,
        impair: Literal["kernel", "userspace"] | None = None,
        prepare: Callable[[Mapping[str, Node]], object] | None = None,
    ) -> Topology:
        """Build a topology from text, a list of statements or a Description. Raises InvalidValue.

        The default of `impair` is that of the option --netns-impair.
        """

        __tracebackhide__ = True
        if isinstance(description, (list, tuple)) and all(isinstance(statement, str) for statement in description):
            description = "\n".join(description)
        options: dict[str, Any] = {"ipv4": ipv4, "ipv6": ipv6, "routes": routes, "first": first, "mtu": mtu}
        options |= {"hosts": hosts, "resolv_conf": resolv_conf, "prepare": prepare}
        if impair is not None:
            options["impair"] = impair
        return self._scope.build(description, **options)

    def line(self, n: int, *, mtu: int | None = None, **options: Unpack[_Options]) -> Topology:
        """Build a chain: n0 – n1 – …"""
        from vethlib.topology import line

        __tracebackhide__ = True
        return self(line(n, mtu=mtu), **options)

    def ring(self, n: int, *, mtu: int | None = None, **options: Unpack[_Options]) -> Topology:
        """Build a ring: n0 – n1 – … – n0."""
        from vethlib.topology import ring

        __tracebackhide__ = True
        return self(ring(n, mtu=mtu), **options)

    def star(
        self,
        n: int,
        *,
        hub: Literal["switch", "router", "node"] = "switch",
        mtu: int | None = None,
        **options: Unpack[_Options],
    ) -> Topology:
        """Build a star: leaf0, leaf1, … around a hub."""
        from vethlib.topology import star

        __tracebackhide__ = True
        return self(star(n, hub=hub, mtu=mtu), **options)

    def mesh(self, n: int, *, mtu: int | None = None, **options: Unpack[_Options]) -> Topology:
        """Build a mesh: n0, n1, …, each connected to every other."""
        from vethlib.topology import mesh

        __tracebackhide__ = True
        return self(mesh(n, mtu=mtu), **options)

    def fat_tree(self, k: int, *, mtu: int | None = None, **options: Unpack[_Options]) -> Topology:
        """Build a fat tree of routers with k ports each, and its hosts."""
        from vethlib.topology import fat_tree

        __tracebackhide__ = True
        return self(fat_tree(k, mtu=mtu), **options)


class _Scope:
    """The topologies that the fixtures of one scope build, to be closed together."""

    def __init__(self, config: pytest.Config, nodeid: str, base: str, session: Session) -> None:
        self._live = config.stash[LIVE]
        self._impair = config.stash[SETTINGS].impair
        self._is_isolated = bool(config.stash[ISOLATION].namespaces)
        self._nodeid = nodeid
        self._base = base
        self._session = session
        self._topologies: list[Topology] = []
        self._nodes = 0
        self._pairs = 0

    def build(self, description: Any, **options: Any) -> Topology:
        """Build a topology and register it."""
        from vethlib.topology import Topology

        __tracebackhide__ = True
        options = {"impair": self._impair} | options
        of_test: list[Exception] = []
        if options.get("prepare") is not None:
            options["prepare"] = _noting(options["prepare"], of_test)
        return self._noted(lambda: Topology.build(description, session=self._session, **options), of_test)

    def node(self, name: str = "") -> Node:
        """Build a single node."""
        from vethlib.topology import Description, Member

        name = name or f"node{self._nodes}"
        self._nodes += 1
        return self.build(Description((Member(name),), ()))[name]

    def pair(self) -> Connected:
        """Build two nodes and a wire."""
        from vethlib.topology import Topology

        first = self._pairs
        self._pairs += 1
        net = self._noted(lambda: Topology.build("a -- b", session=self._session, first=first))
        return Connected(net["a"], net["b"])

    def _noted(self, build: Callable[[], Topology], of_test: Sequence[Exception] = ()) -> Topology:
        """Build and register a topology. Errors of the test's own code, in `of_test`, are raised unchanged."""
        from vethlib.errors import InvalidValue, NotPermitted

        __tracebackhide__ = True
        try:
            topology = build()
        except (InvalidValue, NotPermitted) as error:
            if any(error is raised for raised in of_test):
                raise
            if isinstance(error, NotPermitted):
                cure = "" if self._is_isolated else "; run as root, or with --netns-isolate=always"
                pytest.skip(f"{error}{cure}")
            raise error.with_traceback(None) from None  # an error in the description, and so in the test
        self._topologies.append(topology)
        self._live.built(topology, self._nodeid, self._base)
        return topology

    def close(self) -> None:
        """Close all topologies."""
        self._live.close(self._topologies)


def _noting(prepare: Callable[[Mapping[str, Node]], object], errors: list[Exception]) -> Callable[..., object]:
    """Return `prepare`, wrapped so that an error that it raises is noted in `errors`."""

    def noting(nodes: Mapping[str, Node]) -> object:
        __tracebackhide__ = True
        try:
            return prepare(nodes)
        except Exception as error:
            errors.append(error)
            raise

    return noting


@pytest.fixture(scope="session")
def netns_session(request: pytest.FixtureRequest) -> Iterator[Session]:
    """Provide a vethlib Session whose home namespace is that of the test process. Closing it does nothing."""
    from .leaks.watch import watch
    from .report.failures import attend
    from .session import RunSession

    isolation = request.config.stash.get(ISOLATION, None)
    if isolation is None:  # the plugin is not active, but the package has this fixture, too
        is_blocked = request.config.pluginmanager.is_blocked("netns")
        reason = "blocked (-p no:netns)" if is_blocked else "not loaded (-p netns)"
        pytest.fail(f"netns_session needs the plugin netns, which is {reason}", pytrace=False)
    if isolation.missing:
        pytest.skip(isolation.missing)
    attend(request.config)
    watch(request.config, begun=True)  # a request through getfixturevalue is unknown until the test runs
    session = RunSession()
    try:
        yield session
    finally:
        session.end()


def make_fixtures(scope: str) -> dict[str, Any]:
    """Create the fixtures of a scope, by name."""
    prefix = SCOPES[scope]
    base = base_of(scope)

    def the_scope(request: pytest.FixtureRequest, netns_session: Session) -> Iterator[_Scope]:
        scope_ = _Scope(request.config, request.node.nodeid, base, netns_session)
        yield scope_
        scope_.close()

    def netns(scope: _Scope) -> Node:
        """A node: a new anonymous namespace with its loopback up."""
        return scope.node()

    def netns_factory(scope: _Scope) -> NetnsFactory:
        """Call it to create another node: a new anonymous namespace with its loopback up."""
        return scope.node

    def veth(scope: _Scope) -> Connected:
        """Two nodes connected by a veth pair with addresses: ``a, b = veth``."""
        return scope.pair()

    def veth_factory(scope: _Scope) -> VethFactory:
        """Call it to create two more nodes, connected by a veth pair: 10.0.N.1 and 10.0.N.2, fd00:N::1 and ::2."""
        return scope.pair

    def topology(scope: _Scope) -> TopologyFactory:
        """Call it to create nodes and wires between them: topology("a -- b -- c", routes=True), topology.ring(10)."""
        return TopologyFactory(scope)

    def fixture(function: Callable[..., Any], name: str) -> Any:
        return pytest.fixture(scope=scope, name=name)(function)  # type: ignore[call-overload]

    made = {base: fixture(the_scope, base)}
    for function in (netns, netns_factory, veth, veth_factory, topology):
        name = prefix + function.__name__
        made[name] = fixture(_asking_for(base, function), name)
    return made


def _asking_for(base: str, function: Callable[[_Scope], Any]) -> Callable[..., Any]:
    """Return `function` with a signature from which pytest takes the name of the fixture `base`."""

    def made(**given: _Scope) -> Any:
        return function(given[base])

    made.__name__, made.__doc__ = function.__name__, function.__doc__
    made.__signature__ = Signature([Parameter(base, Parameter.KEYWORD_ONLY)])  # type: ignore[attr-defined]
    return made
