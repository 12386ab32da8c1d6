"""OSPF between nodes: three routers run BIRD, the wire that carries the traffic goes down, and another way is found.

    pytest examples/test_ospf.py    # with bird (Debian: bird2), as root or where user namespaces are allowed

The network, in which client and server know only their own router, and the routers learn everything from each other:

    client -- r1 ------ r2 -- server
               `-- r3 --'
"""

import json
import shutil

import pytest

from vethlib.pytest_netns import Node, Topology, TopologyFactory

TRIANGLE = """
    router r1 r2 r3
    client -- r1 -- r2 -- server
    r1 -- r3 -- r2
"""
CONFIGURATION = """
    router id 192.0.2.{number};
    protocol device {{ }}
    protocol kernel {{ ipv4 {{ export all; import none; }}; }}
    protocol ospf {{
        tick 1;
        area 0 {{ interface "eth*" {{ type ptp; hello 1; dead 4; retransmit 2; }}; }};
    }}
"""
CONVERGED = 45.0  # seconds at most; it takes about six, since a router announces changes once in five (RFC 2328, B)

pytestmark = pytest.mark.skipif(not shutil.which("bird", path="/usr/sbin:/usr/bin"), reason="bird is not installed")


@pytest.fixture
def net(topology: TopologyFactory) -> Topology:
    """The network above, with its routers running."""
    net = topology(TRIANGLE, ipv6=False)
    for number, name in enumerate(("r1", "r2", "r3"), start=1):
        # Each node has a /run of its own, so the routers do not share a control socket.
        net[name].set_file("/run/bird.conf", CONFIGURATION.format(number=number))
        net[name].start(["bird", "-f", "-c", "/run/bird.conf", "-s", "/run/bird.ctl", "-P", "/run/bird.pid"])
    net["client"].route("default", via=net["r1"])
    net["server"].route("default", via=net["r2"])
    return net


def next_hop(router: Node, destination: str) -> str:
    """Return the address of the router to which the kernel of `router` passes on packets for `destination`."""
    (route,) = json.loads(router.run(["ip", "-json", "route", "get", destination]).stdout)
    return str(route["gateway"])


def test_traffic_takes_another_way_when_a_wire_goes_down(net: Topology) -> None:
    client, server, r1, r2, r3 = (net[name] for name in ("client", "server", "r1", "r2", "r3"))
    client.wait_for(lambda: client.ping(server, timeout=0.5), timeout=CONVERGED)
    r1.wait_for(lambda: next_hop(r1, server.ipv4) == r2.address(towards=r1), timeout=CONVERGED)

    net.down(r1, r2)
    client.wait_for(lambda: client.ping(server, timeout=0.5), timeout=CONVERGED)
    r1.wait_for(lambda: next_hop(r1, server.ipv4) == r3.address(towards=r1), timeout=CONVERGED)
