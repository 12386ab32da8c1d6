"""Podman's service beside Docker's engine: other names of events, the same microservices."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends.podman import Podman
from tests.backends.resolving import NOT_RUNNING, answer, down, until
from tests.live.applying import interface, reaches
from tests.live.configuring import by_label, configured, is_state, placed, put, settle
from tests.live.configuring import until as until_kept
from tests.witness import names, poll
from vethlib import Session, ns
from vethlib.agent import DockerResolver, State
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.follow.docker import engine
from vethlib.follow.docker.engine import engine_version

pytestmark = pytest.mark.slow

TOLD = 90.0  # seconds: its events are looked for four times a second, and on a busy machine it takes long to answer


@pytest.fixture
def resolver(podman: Podman) -> Iterator[DockerResolver]:
    resolver = DockerResolver(podman.socket)
    yield resolver
    resolver.close()


def test_starts_restarts_kills_ends_and_removals_are_followed(podman: Podman, resolver: DockerResolver) -> None:
    until(resolver, NOT_RUNNING)
    container = podman.create("vnf", "vnf1")
    container.start()
    until(resolver, container.netns, TOLD)
    container.rename("renamed")
    container.restart()
    until(resolver, container.netns, TOLD)
    for end in (container.kill, lambda: os.kill(container.pid, signal.SIGKILL), container.remove):
        end()
        until(resolver, NOT_RUNNING, TOLD)
        if end != container.remove:
            container.start()
            until(resolver, container.netns, TOLD)


def test_of_two_with_one_label_the_survivor_answers_whichever_way_the_first_one_ends(
    podman: Podman, resolver: DockerResolver
) -> None:
    first, second = podman.run("first", "vnf1"), podman.run("second", labels={"microservice_label": "vnf1"})
    until(resolver, first.netns, TOLD)
    until(resolver, lambda _: resolver.remark("vnf1"), TOLD)
    os.kill(first.pid, signal.SIGKILL)
    until(resolver, second.netns, TOLD)
    first.start()
    until(resolver, lambda _: resolver.remark("vnf1"), TOLD)
    assert answer(resolver) == second.netns
    second.remove()
    until(resolver, first.netns, TOLD)
    assert resolver.remark("vnf1") == ""


def test_a_paused_one_keeps_its_label_through_restarts_of_the_service(podman: Podman, resolver: DockerResolver) -> None:
    paused, ends = podman.run("paused", "vnf1"), podman.run("ends", "vnf2")
    until(resolver, paused.netns, TOLD)
    netns, ending = paused.netns, ends.pid
    paused.pause()
    for end in (podman.kill9, podman.stop):
        end()
        until(resolver, down, TOLD)
        if end == podman.kill9:
            os.kill(ending, signal.SIGKILL)
        podman.up()
        until(resolver, netns, TOLD)
        assert answer(resolver, "vnf2") == "microservice vnf2 is not running"
    paused.unpause()
    assert paused.netns == netns


def test_a_pair_goes_to_the_survivor_and_no_other_one_is_touched(
    home: ns.Netns, podman: Podman, resolver: DockerResolver
) -> None:
    first, second = podman.run("first", "vnf1"), podman.run("second", "vnf1")
    other = podman.run("other", network=f"container:{second.id}", label="vnf2")
    with Session(resolver=resolver) as session, Configurator(session) as configurator:
        put(
            configurator,
            placed("port1", "uplink1", by_label("vnf1"), host_if_name="eth9", ip_addresses=("10.9.1.1/24",)),
            interface("uplink1", "port1", ip_addresses=["10.9.1.2/24"]),
            placed("port2", "uplink2", by_label("vnf2"), host_if_name="eth8"),
            interface("uplink2", "port2"),
        )
        until_kept(configurator, configured(configurator, "port1", "uplink1", "port2", "uplink2"), TOLD)
        assert names(first.netns) == {"eth9"}
        states = {State.CONFIGURED}
        first.kill()

        def moved() -> bool:
            states.update(status.state for status in configurator.status("port2"))
            return names() == {"uplink1", "uplink2"} and names(second.netns) == {"eth8", "eth9"}

        until_kept(configurator, moved, TOLD)
        until_kept(configurator, configured(configurator, "port1", "uplink1"))
        assert states == {State.CONFIGURED}
        assert reaches("", "10.9.1.1", second.netns)
        podman.kill9()
        settle(configurator)
        assert configured(configurator, "port1", "uplink1", "port2", "uplink2")()
        podman.up()
        for one in (other, second):
            one.remove()
        until_kept(configurator, is_state(configurator, State.PENDING, "port1", "port2"), TOLD)
        assert names() == set()


def test_its_version_is_told(podman: Podman, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_TIMEOUT", 60.0)  # of a machine that is busy with other tests
    said = subprocess.run(["podman", "--version"], capture_output=True, text=True, check=True).stdout
    assert engine_version(podman.socket) == said.split()[-1]


def test_the_service_of_the_tests_leaves_nothing(short_path: Path, home: ns.Netns) -> None:
    places = [Path("/etc/containers"), Path("/var/lib/containers"), Path("/run/containers"), Path("/run/libpod")]

    def there() -> list[tuple[Path, list[Path]]]:
        return [(place, sorted(place.rglob("*"))) for place in places]

    before = there()
    podman = Podman(short_path / "p")
    podman.up()
    try:
        container = podman.run("vnf", "vnf1")
        pid = container.pid
        container.pause()
        podman.kill9()
    finally:
        podman.down()
    assert not Path(f"/proc/{pid}").exists()
    assert not (short_path / "p").exists()
    assert poll(lambda: str(short_path) not in Path("/proc/self/mountinfo").read_text())
    groups = [*Path("/sys/fs/cgroup").glob("*"), *Path("/sys/fs/cgroup").glob("*/*")]
    assert not [group for group in groups if short_path.name in group.name]
    assert there() == before
