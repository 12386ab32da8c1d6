"""The plugin with the oldest supported pytest, and its cost for projects that do not use it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .plugin import Project, unprivileged

pytestmark = pytest.mark.slow

OLDEST = Path(__file__).parents[2] / ".build" / f"pytest-oldest{Path(sys.prefix).name.removeprefix('.venv')}"
"""Made by scripts/venv: the tests themselves have no network to install anything from."""

PROJECT = """
import asyncio
import socket

import pytest

pytest_plugins = ["pytester"]

@pytest.fixture(scope="module")
def net(module_topology):
    return module_topology("client -- r1 -- r2 -- server", routes=True)

@pytest.mark.parametrize("number", range(4))
def test_it(net, number):
    with net["server"].socket(type=socket.SOCK_DGRAM) as server, net["client"].socket(type=socket.SOCK_DGRAM) as client:
        server.bind(("", 7))
        server.settimeout(5)
        client.sendto(b"%d" % number, (net["server"].ipv4, 7))
        assert server.recv(100) == b"%d" % number

@pytest.mark.asyncio
async def test_async(veth):
    with veth.b.socket(type=socket.SOCK_DGRAM) as server, veth.a.socket(type=socket.SOCK_DGRAM) as client:
        server.setblocking(False)
        server.bind(("", 7))
        client.sendto(b"hello", (veth.b.ipv4, 7))
        assert await asyncio.get_running_loop().sock_recv(server, 100) == b"hello"

def test_version():
    assert pytest.__version__ == "7.4.0"
"""
FAILS = """
from vethlib import ns

def test_it(veth):
    ns.Netns.create("left").close()
    assert False
"""


@pytest.fixture
def oldest(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    assert OLDEST.is_dir(), "scripts/venv makes it: make test"
    monkeypatch.setenv("PYTHONPATH", str(OLDEST), prepend=os.pathsep)
    # Plugins of the newest pytest, which do not all know the oldest; those it has itself are named.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p vethlib.pytest_netns -p xdist -p pytest_asyncio.plugin")
    return Project(pytester)


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "xdist"])
@pytest.mark.parametrize("before", [None, unprivileged()], ids=["root", "anybody"])
def test_tests_pass_with_the_oldest_pytest(oldest: Project, before: list[str] | None, workers: list[str]) -> None:
    oldest.write(PROJECT)
    oldest.run(*workers, before=before, asyncio=True).assert_outcomes(passed=6)


def test_leaks_failures_and_captures_are_told_by_the_oldest_pytest(oldest: Project) -> None:
    oldest.write(FAILS)
    result = oldest.run("--netns-pcap", asyncio=True)
    result.assert_outcomes(failed=1, errors=1)
    result.stdout.fnmatch_lines(["*netns topology*", "*netns node a*", "*netns captures*"])
    assert "namespace left, in /run/netns" in result.stdout.str()


def test_usage_errors_are_told_by_the_oldest_pytest(oldest: Project) -> None:
    result = oldest.run("--netns-leaks=never")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --netns-leaks: 'never' is not one of fail, warn, off"])


PACKAGE = "vethlib.pytest_netns"


@pytest.mark.parametrize("is_installed", [True, False], ids=["installed", "without autoload"])
@pytest.mark.parametrize(
    ("arguments", "conftest"),
    [
        (["-p", PACKAGE], ""),
        ([], f"pytest_plugins = ['{PACKAGE}']"),
        (["-p", PACKAGE, "-p", PACKAGE], f"pytest_plugins = ['{PACKAGE}']"),
        (["-p", "netns"], f"pytest_plugins = ['{PACKAGE}']"),
        (["-p", PACKAGE, "-p", "netns"], ""),
    ],
)
def test_a_project_may_name_the_plugin_whether_or_not_it_is_loaded_anyway(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    is_installed: bool,
    arguments: list[str],
    conftest: str,
) -> None:
    if not is_installed:
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    project = Project(pytester)
    project.write(conftest, "conftest.py")
    project.write("def test_it(veth, pytestconfig):\n    assert pytestconfig.option.netns_pcap == 'failed'\n")
    result = project.run(*arguments, "--netns-pcap=failed", "-W", "error::pytest.PytestAssertRewriteWarning")
    result.assert_outcomes(passed=1)
    assert result.stdout.str().count("netns: ") == 1


def test_a_plugin_that_is_blocked_stays_so_if_the_package_is_named(pytester: pytest.Pytester) -> None:
    project = Project(pytester)
    project.write("def test_it(pytestconfig):\n    assert not pytestconfig.pluginmanager.has_plugin('netns')\n")
    result = project.run("-p", "no:netns", "-p", PACKAGE)
    result.assert_outcomes(passed=1)
    assert "netns: " not in result.stdout.str()


BLOCKED = "blocked (-p no:netns)"


@pytest.mark.parametrize(
    ("arguments", "conftest", "reason"),
    [
        (["-p", "no:netns"], f"pytest_plugins = ['{PACKAGE}']", BLOCKED),
        (["-p", "no:netns", "-p", PACKAGE], "", BLOCKED),
        (["-p", "no:netns"], f"from {PACKAGE} import netns_session", BLOCKED),
        ([], f"from {PACKAGE} import netns_session", "not loaded (-p netns)"),
    ],
)
def test_the_session_fails_with_the_reason_if_there_is_no_plugin(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, arguments: list[str], conftest: str, reason: str
) -> None:
    if reason != BLOCKED:
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    project = Project(pytester)
    project.write(conftest, "conftest.py")
    project.write("def test_it(netns_session): pass\ndef test_other(): pass\n")
    result = project.run(*arguments)
    result.assert_outcomes(passed=1, errors=1)
    assert f"\nnetns_session needs the plugin netns, which is {reason}\n" in result.stdout.str()


def test_a_run_that_does_not_use_it_loads_little_of_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import sys\ndef test_it():\n    assert 'vethlib.topology' not in sys.modules\n")
    alone = ["env"]  # with which it is a Python of its own: in one that is forked much is loaded beforehand
    Project(pytester).run(before=alone).assert_outcomes(passed=1)


def test_types_of_the_fixtures_can_be_imported_without_pytest_running() -> None:
    code = "from vethlib.pytest_netns import Connected, NetnsFactory, Node, Topology, TopologyFactory, VethFactory"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
