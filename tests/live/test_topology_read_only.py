"""Topologies where /proc/sys is read-only, as in a container that is not privileged."""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator

import pytest

from tests.live.plugin import Project, unprivileged
from tests.mounts import READ_ONLY, read_only_sysctls
from tests.refusing import raises
from vethlib import NetlinkError, NotPermitted
from vethlib.topology import Topology
from vethlib.topology.live import settings

IN_A_CONTAINER = ["unshare", "-m", "sh", "-c", f'{READ_ONLY} && exec "$@"', "sh"]


@pytest.fixture
def read_only() -> Iterator[None]:
    with read_only_sysctls():
        yield


@pytest.fixture
def forwarding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host forwards, and so do new namespaces."""
    values = settings._ALWAYS | dict.fromkeys(settings._FORWARDING, "1")
    monkeypatch.setattr(settings, "_fresh", (math.inf, values))


@pytest.mark.usefixtures("read_only")
@pytest.mark.parametrize("text", ["a -- b delay=0ms", "a -- b loss=1%/0; b -- c"])
def test_the_relay_needs_no_sysctl(text: str) -> None:
    with Topology.build(text, impair="userspace") as net:
        assert net["a"].run(["ping", "-c1", "-W20", net["b"].ipv4]).returncode == 0


@pytest.mark.usefixtures("read_only")
@pytest.mark.parametrize("text", ["a -- r -- b", "router r; a -- r"])
def test_nodes_that_cannot_forward_are_not_built(text: str) -> None:
    with raises(NotPermitted, errno=errno.EROFS):
        Topology.build(text, routes=True)


@pytest.mark.usefixtures("read_only", "forwarding")
@pytest.mark.parametrize("text", ["a -- b -- c", "a -- b; a -- c"])
def test_nodes_that_would_forward_are_not_built(text: str) -> None:
    with raises(NotPermitted, errno=errno.EROFS):
        Topology.build(text)


@pytest.mark.usefixtures("read_only", "forwarding")
@pytest.mark.parametrize("text", ["a -- b", "switch s; a -- s; b -- s", "router r; r -- a; r -- b", "node a"])
def test_nodes_between_which_nothing_is_forwarded_are_built(text: str) -> None:
    with Topology.build(text) as net:
        assert "a" in net


@pytest.mark.usefixtures("read_only")
@pytest.mark.parametrize("text", ["a -- b ipv6=off", "a -- b sysctl.rp_filter=2"])
def test_settings_that_cannot_be_written_are_errors_and_leave_nothing(text: str) -> None:
    with raises(NetlinkError, errno=errno.EROFS):
        Topology.build(text)


FORWARDS = """
def test_it(topology):
    net = topology("a -- r -- b; b -- c ipv6=off", routes=True)
    assert net["a"].ping(net["b"])
"""


def test_an_isolated_run_can_write_the_settings(pytester: pytest.Pytester) -> None:
    project = Project(pytester)
    project.write(FORWARDS)
    project.run(before=IN_A_CONTAINER).assert_outcomes(passed=1)


def test_a_skipped_test_does_not_recommend_what_is_so_already(pytester: pytest.Pytester) -> None:
    project = Project(pytester)
    project.write(FORWARDS)
    skipped = project.run("-rs", before=[*IN_A_CONTAINER, *unprivileged()])
    skipped.assert_outcomes(skipped=1)
    skipped.stdout.no_fnmatch_line("*--netns-isolate*")
