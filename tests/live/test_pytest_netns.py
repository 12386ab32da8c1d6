"""The fixtures, as their users use them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from tests.refusing import raises
from vethlib import InvalidValue
from vethlib.topology import Member, Port, Wire
from vethlib.topology.design.description import Description

from .plugin import Project

if TYPE_CHECKING:
    from vethlib.pytest_netns import Connected, NetnsFactory, Node, Topology, TopologyFactory, VethFactory


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    return Project(pytester)


def test_a_node_has_its_loopback_up_and_nothing_else(netns: Node) -> None:
    (lo,) = json.loads(netns.run(["ip", "-j", "link"]).stdout)
    assert lo["ifname"] == "lo"
    assert "UP" in lo["flags"]


def test_nodes_of_the_factory_are_each_their_own(netns: Node, netns_factory: NetnsFactory) -> None:
    first, second = netns_factory(), netns_factory("server")
    assert len({netns.netns, first.netns, second.netns}) == 3
    assert [netns.name, first.name, second.name] == ["node0", "node1", "server"]


def test_two_nodes_of_a_veth_talk_to_each_other(veth: Connected) -> None:
    a, b = veth
    assert (a, b) == (veth.a, veth.b)
    with b.socket() as server, a.socket() as client:
        server.bind(("10.0.0.2", 7))
        server.listen()
        client.connect(("10.0.0.2", 7))
        accepted, address = server.accept()
        accepted.close()
    assert address[0] == "10.0.0.1"


def test_another_veth_has_nodes_and_addresses_of_its_own(veth: Connected, veth_factory: VethFactory) -> None:
    other = veth_factory()
    assert {str(one) for one in other.a.addresses} == {"10.0.1.1/24", "fd00:1::1/64"}
    assert other.a.netns != veth.a.netns


@pytest.mark.parametrize(
    "description",
    [
        "a -- b -- c",
        ["a -- b", "b -- c"],
        Description((Member("a"), Member("b"), Member("c")), (Wire(Port("a"), Port("b")), Wire(Port("b"), Port("c")))),
    ],
    ids=["text", "statements", "values"],
)
def test_a_topology_is_described_by_text_statements_or_values(
    topology: TopologyFactory, description: str | list[str] | Description
) -> None:
    net = topology(description, ipv6=False)
    assert [str(one) for one in net["b"].addresses] == ["10.0.0.2/24", "10.0.1.1/24"]


def test_shapes_need_no_import(topology: TopologyFactory) -> None:
    nets = topology.line(2), topology.ring(3), topology.star(2), topology.mesh(3, mtu=1400), topology.fat_tree(2)
    assert [len(net) for net in nets] == [2, 3, 3, 3, 7]
    assert nets[3]["n0"].links()[1].mtu == 1400


def test_options_of_a_shape_are_those_of_a_topology(topology: TopologyFactory) -> None:
    net = topology.line(3, routes=True, ipv6=False)
    assert [str(one) for one in net["n0"].addresses] == ["10.0.0.1/24"]
    assert "default via 10.0.0.2" in net["n0"].run(["ip", "route"]).stdout


def test_first_numbers_the_first_segment(topology: TopologyFactory) -> None:
    assert topology.line(2, first=3)["n0"].ipv4 == "10.0.3.1"


@pytest.mark.parametrize("description", [None, 5, [1], b"a -- b", "", [], Description((), ())])
def test_what_describes_nothing_is_told_as_such(topology: TopologyFactory, description: Any) -> None:
    with raises(InvalidValue, field="topology"):
        topology(description)


def test_a_description_of_lists_is_as_good_as_one_of_tuples(topology: TopologyFactory) -> None:
    described: Any = Description([Member("a"), Member("b")], [Wire(Port("a"), Port("b"))])  # type: ignore[arg-type]
    assert topology(described)["b"].ipv4 == "10.0.0.2"


def test_what_cannot_be_built_says_why(topology: TopologyFactory) -> None:
    with raises(InvalidValue, field="topology", value="a -- a"):
        topology("a -- a")


def test_a_closed_node_or_topology_may_be_closed_before_the_test_ends(
    netns_factory: NetnsFactory, topology: TopologyFactory
) -> None:
    netns_factory().close()
    topology("a -- b").close()


@pytest.fixture(scope="module")
def shared(module_topology: TopologyFactory) -> Topology:
    return module_topology("a -- b")


def test_a_server_and_a_client_of_two_nodes_are_in_one_event_loop(veth: Connected) -> None:
    client_node, server_node = veth

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()

    async def ask() -> bytes:
        listening = server_node.socket()
        listening.bind(("", 7))
        server = await asyncio.start_server(answer, sock=listening)
        connection = client_node.socket()
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (server_node.ipv4, 7))
        reader, writer = await asyncio.open_connection(sock=connection)
        writer.write(b"hello\n")
        answered = await reader.readline()
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return answered

    assert asyncio.run(ask()) == b"HELLO\n"


@pytest.mark.asyncio
async def test_fixtures_serve_an_async_test(topology: TopologyFactory) -> None:
    net = topology("client -- router -- server", routes=True)
    loop = asyncio.get_running_loop()
    with (
        net["server"].socket(type=socket.SOCK_DGRAM) as server,
        net["client"].socket(type=socket.SOCK_DGRAM) as client,
    ):
        server.bind(("", 7))
        for one in (server, client):
            one.setblocking(False)
        receiving = asyncio.ensure_future(loop.sock_recvfrom(server, 100))
        await loop.sock_sendto(client, b"hello", (net["server"].ipv4, 7))
        message, (sender, _port) = await asyncio.wait_for(receiving, 5)
    assert (message, sender) == (b"hello", net["client"].ipv4)
    # A blocking call goes into a thread of the loop's, or into one of the node's; neither moves the loop.
    here = os.stat("/proc/thread-self/ns/net").st_ino
    inside = await asyncio.wrap_future(net["client"].submit(lambda: os.stat("/proc/thread-self/ns/net").st_ino))
    assert inside == net["client"].netns.identity[1]
    assert os.stat("/proc/thread-self/ns/net").st_ino == here


def test_each_scope_has_its_own_and_ends_it_in_time(project: Project) -> None:
    project.write(
        """
import pytest

seen = {}

class TestTwice:
    @pytest.mark.parametrize("time", [1, 2])
    def test_it(self, time, netns, class_netns, module_netns, session_netns):
        nodes = {"function": netns, "class": class_netns, "module": module_netns, "session": session_netns}
        for scope, node in nodes.items():
            assert not node.closed
            seen.setdefault(scope, []).append(node)

def test_after_the_class(module_netns, session_netns):
    assert seen["function"][0] is not seen["function"][1]
    assert seen["class"][0] is seen["class"][1]
    assert [one.closed for one in (*seen["function"], seen["class"][0])] == [True] * 3
    assert module_netns is seen["module"][0] is seen["module"][1]
"""
    )
    project.write(
        """
from test_it import seen

def test_in_another_module(session_netns, module_netns):
    assert seen["module"][0].closed
    assert module_netns is not seen["module"][0]
    assert session_netns is seen["session"][0]
""",
        "test_next.py",
    )
    project.run("-p", "no:xdist", "test_it.py", "test_next.py").assert_outcomes(passed=4)


@pytest.mark.parametrize("scope", ["class", "module", "session"])
def test_factories_of_wider_scopes_serve_fixtures_of_theirs(project: Project, scope: str) -> None:
    project.write(
        f"""
import pytest

@pytest.fixture(scope="{scope}")
def net({scope}_topology, {scope}_veth_factory, {scope}_veth, {scope}_netns_factory):
    assert {scope}_veth.b.ipv4 == "10.0.0.2"
    assert {scope}_veth_factory().b.ipv4 == "10.0.1.2"
    assert {scope}_netns_factory("x").name == "x"
    return {scope}_topology("a -- b")

def test_it(net):
    assert not net.closed
"""
    )
    project.run().assert_outcomes(passed=1)


def test_a_fixture_of_too_narrow_a_scope_is_refused_by_pytest(project: Project) -> None:
    project.write("import pytest\n@pytest.fixture(scope='module')\ndef net(topology): pass\ndef test_it(net): pass\n")
    result = project.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["ScopeMismatch:*"])


def test_plain_session_is_there_for_everything_else(project: Project) -> None:
    project.write(
        """
from vethlib import End, Veth

def test_it(netns_session, netns):
    netns_session.create(Veth(End("out"), End("in", netns.netns)))
    assert netns.links()[1].name == "in"
    netns_session.delete("out")
"""
    )
    project.run().assert_outcomes(passed=1)


def test_a_test_that_closes_the_session_leaves_it_open_for_the_other_tests(project: Project) -> None:
    project.write(
        """
from vethlib import End, Veth

def test_in_a_with_statement(netns_session):
    with netns_session as session:
        session.create(Veth(End("x0"), End("x1")))
        session.delete("x0")

def test_close(netns_session):
    netns_session.close()

def test_others(netns_session, topology, veth):
    assert netns_session.links()[0].name == "lo"
    assert topology("a -- b")["a"].links()[1].name == "eth0"
    assert veth.a.ping(veth.b)
"""
    )
    project.run().assert_outcomes(passed=3)
