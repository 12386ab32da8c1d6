"""A container on two networks: its clients are on the front network, its database is on the back network.

    docker pull busybox
    pytest examples/test_container.py    # as root, with the Docker Engine of this host; needs vethlib[docker]

The container is under test; whatever it talks to is a node of a topology. The engine connects it to nothing.
"""

import os
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import closing

import docker
import pytest
from docker.models.containers import Container

from vethlib import End, Session, Veth
from vethlib.agent import DockerResolver
from vethlib.pytest_netns import Topology, TopologyFactory

ENGINE = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
PATIENCE = 30.0  # seconds
SERVE = ["sh", "-c", "echo hello >/tmp/index.html; exec busybox httpd -f -p 80 -h /tmp"]


@pytest.fixture(scope="module")
def web() -> Iterator[Container]:
    """A container with a web server, which is found by its label, and has no network yet."""
    with closing(docker.DockerClient(ENGINE)) as engine:
        container = engine.containers.run(
            "busybox", SERVE, detach=True, network_mode="none", environment={"MICROSERVICE_LABEL": "web"}
        )
        try:
            yield container
        finally:
            container.remove(force=True)


@pytest.fixture(scope="module")
def net(module_topology: TopologyFactory, web: Container) -> Iterator[Topology]:
    """Two networks, and the container in both: eth0 is in the front network, eth1 in the back network."""
    net = module_topology("node client; node database")
    with closing(DockerResolver(ENGINE, patience=PATIENCE)) as resolver, Session(resolver=resolver) as session:
        session.create_many(
            [
                Veth(
                    End("eth0", netns="microservice:web", addresses=["10.1.0.2/24"]),
                    End("eth0", netns=net["client"], addresses=["10.1.0.1/24"]),
                ),
                Veth(
                    End("eth1", netns="microservice:web", addresses=["10.2.0.2/24"]),
                    End("eth0", netns=net["database"], addresses=["10.2.0.1/24"]),
                ),
            ]
        )
        yield net


def test_clients_fetch_pages_over_the_front_network(net: Topology) -> None:
    client = net["client"]
    with client.wait_for(lambda: urllib.request.urlopen("http://10.1.0.2/", timeout=5), timeout=PATIENCE) as page:
        assert page.read() == b"hello\n"


def test_it_calls_the_database_over_the_back_network(net: Topology, web: Container) -> None:
    with net["database"].call(socket.create_server, ("", 5432)) as listening:
        listening.settimeout(PATIENCE)
        web.exec_run(["sh", "-c", "echo select | nc 10.2.0.1 5432"], detach=True)
        connection, (caller, _) = listening.accept()
        with connection:
            assert connection.recv(100) == b"select\n"
        assert caller == "10.2.0.2"
