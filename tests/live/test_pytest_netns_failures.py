"""The content of the report of a failed test, captures of tests, and topologies that stay up."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import runs

from .plugin import Project, unprivileged

pytestmark = pytest.mark.slow

FAILS = """
import socket
def test_it(topology):
    net = topology("switch s; a -- r; r -- s; b -- s", routes=True)
    with net["a"].socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto(b"said-before-it-failed", (net["b"].ipv4, 7))
    net["b"].start(["sleep", "1000"])
    assert False
"""
PASSES = FAILS.replace("assert False", "assert True")


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    return Project(pytester)


def test_a_failure_shows_the_topology_and_every_node(project: Project) -> None:
    project.write(FAILS)
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*- netns topology -*",
            "a *eth0  10.0.0.1/24 *──*eth0  10.0.0.2/24 *r",
            "s (switch) *eth0 *──*eth1  10.0.1.1/24 *r",
            "*- netns node s -*",
            "br0 *",
            "*- netns node a -*",
            "eth0 *UP *mtu 1500 *10.0.0.1/24*",
            "routes:",
            "  default *via 10.0.0.2 *dev eth0",
            "counters:",
            "  eth0 tx *",
            "*- netns node b -*",
        ]
    )


def test_a_test_that_passes_shows_nothing(project: Project) -> None:
    project.write(PASSES)
    result = project.run("-rA")
    result.assert_outcomes(passed=1)
    assert "netns topology" not in result.stdout.str()


def test_a_failure_in_the_setup_shows_what_was_up_by_then(project: Project) -> None:
    project.write(
        "import pytest\n@pytest.fixture\ndef server(veth):\n    raise RuntimeError('no server')\n"
        "def test_it(server): pass\n"
    )
    result = project.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*- netns node a -*", "*- netns node b -*"])


def test_topologies_of_a_module_are_shown_too(project: Project) -> None:
    project.write(
        "import pytest\n@pytest.fixture(scope='module')\ndef net(module_topology): return module_topology('x -- y')\n"
        "def test_it(net): assert False\n"
    )
    project.run().stdout.fnmatch_lines(["*- netns node x -*", "*- netns node y -*"])


def test_a_test_that_has_no_part_in_a_modules_topology_does_not_show_it(project: Project) -> None:
    project.write(
        "import pytest\n@pytest.fixture(scope='module')\ndef net(module_topology): return module_topology('x -- y')\n"
        "def test_first(net): pass\ndef test_other(veth): assert False\ndef test_plain(): assert False\n"
    )
    result = project.run()
    result.assert_outcomes(passed=1, failed=2)
    told = result.stdout.str()
    assert "netns node x" not in told
    assert told.count("netns node a") == 1


def test_a_test_with_a_wrong_marker_shows_no_topology_of_the_test_before(project: Project) -> None:
    project.write(
        "import pytest\ndef pytest_collection_modifyitems(items):\n"
        "    items[1].add_marker(pytest.mark.netns(leaks='nope'))\n",
        "conftest.py",
    )
    project.write("def test_first(session_topology): session_topology('x -- y')\ndef test_marked(): pass\n")
    result = project.run()
    result.assert_outcomes(passed=1, errors=1)
    assert "netns node x" not in result.stdout.str()


_REQUESTS = """
import pytest
@pytest.fixture
def wired(request): return request.getfixturevalue("module_veth")
@pytest.fixture(scope="module")
def built(request): return request.getfixturevalue("module_topology")("a -- b")
def test_first(request): {first}
def test_requesting(request): {then}; assert False
def test_wired(wired): assert False
def test_plain(netns_session): assert False
"""


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("pass", "request.getfixturevalue('module_veth')"),
        ("request.getfixturevalue('module_veth')", "request.getfixturevalue('module_veth')"),
        ("request.getfixturevalue('built')", "request.getfixturevalue('built')"),
        ("globals()['net'] = request.getfixturevalue('session_topology')", "net('a -- b')"),
    ],
    ids=["new", "existing", "another fixture", "built only"],
)
def test_topologies_that_a_test_requests_while_it_runs_are_its_own(
    project: Project, holders: list[int], first: str, then: str
) -> None:
    project.write(_REQUESTS.format(first=first, then=then))
    result = project.run("--netns-pcap", "--netns-keep", "-k", "first or requesting or plain")
    result.assert_outcomes(passed=1, failed=2)
    told = result.stdout.str()
    assert told.count("- netns node a -") == 1
    assert len(captures(project)) == 1
    result.stdout.fnmatch_lines(["test_it.py::test_requesting: a, b"])
    kept_by(result, holders)


def test_a_topology_that_a_fixture_requests_is_that_of_the_test(project: Project) -> None:
    project.write(_REQUESTS.format(first="request.getfixturevalue('module_veth')", then="pass"))
    told = project.run("-k", "first or wired or plain")
    told.assert_outcomes(passed=1, failed=2)
    assert told.stdout.str().count("- netns node a -") == 1


@pytest.mark.parametrize(("settings", "files"), [(("all", "off"), 1), (("failed", "all"), 0), (("all", "failed"), 1)])
def test_the_test_that_builds_a_topology_decides_on_its_captures(
    project: Project, settings: tuple[str, str], files: int
) -> None:
    tests = [
        f"@pytest.mark.netns(pcap='{pcap}')\ndef test_{number}(net): pass\n" for number, pcap in enumerate(settings)
    ]
    project.write(
        "import pytest\n@pytest.fixture(scope='module')\ndef net(module_topology): return module_topology('a -- b')\n"
        + "".join(tests)
    )
    project.run().assert_outcomes(passed=2)
    assert len(captures(project)) == files


def test_a_program_that_fails_shows_the_line_of_the_test_and_what_it_said(project: Project) -> None:
    project.write("def test_it(netns):\n    netns.run(['ip', 'link', 'show', 'nothing'])\n")
    told = project.run("--netns-nodes=0").stdout.str()
    assert "does not exist" in told
    assert ">       netns.run(['ip', 'link', 'show', 'nothing'])" in told
    assert "subprocess.py" not in told
    assert len(told.splitlines()) < 30


def test_a_wrong_description_shows_the_line_of_the_test_and_no_other(project: Project) -> None:
    project.write("def test_it(topology):\n    topology('a - b')\n")
    told = project.run().stdout.str()
    assert ">       topology('a - b')" in told
    assert "vethlib/topology" not in told


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("NotPermitted('not allowed here', errno=1)", "E *vethlib.errors.NotPermitted: not allowed here"),
        ("InvalidValue('mtu', 1, 'must be larger')", "E *vethlib.errors.InvalidValue: mtu *"),
    ],
)
def test_an_error_of_the_preparation_is_that_of_the_test(project: Project, error: str, line: str) -> None:
    project.write(
        "from vethlib import InvalidValue, NotPermitted\n"
        f"def wrong(): raise {error}\ndef prepare(nodes):\n    wrong()\n"
        "def test_it(topology): topology('a -- b', prepare=prepare)\n"
        "def test_other(topology): topology('a -- b', prepare=lambda nodes: nodes['a'].run(['true']))\n"
    )
    result = project.run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["> *prepare=prepare*", "test_it.py:4: in prepare", line])


def test_of_many_nodes_only_some_are_shown_and_the_option_that_shows_all(project: Project) -> None:
    project.write("def test_it(topology, netns):\n    topology.ring(5)\n    assert False\n")
    told = project.run("--netns-nodes=3").stdout.str()
    assert len(re.findall("netns node n", told)) == 3
    assert "3 more; --netns-nodes=6 shows them" in told
    assert "netns node " not in project.run("--netns-nodes=0").stdout.str()
    assert len(re.findall("netns node n", project.run("--netns-nodes=6").stdout.str())) == 6


@pytest.mark.parametrize(
    ("break_it", "title"),
    [
        ("type(net).__str__ = broken", "netns topology"),
        ("net['a'].links = broken", "netns node a"),
        ("from vethlib.topology.live.capture import Capture; Capture.missing = property(broken)", "netns captures"),
        ("import subprocess; subprocess.run = broken", "netns not kept"),
    ],
)
def test_an_error_of_a_section_is_in_the_section_and_the_run_continues(
    project: Project, break_it: str, title: str
) -> None:
    project.write(
        "def broken(*_, **__):\n    raise ValueError('broken here')\n"
        f"def test_it(topology):\n    net = topology('a -- b')\n    {break_it}\n    assert False\n"
        "def test_next(): pass\n"
    )
    result = project.run("--netns-keep", "--netns-pcap", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines([f"*- {title} -*", "*ValueError: broken here"])
    if title != "netns not kept":
        holder = re.search(r"end it: +kill (\d+)", result.stdout.str())
        assert holder
        os.kill(int(holder[1]), signal.SIGTERM)


def test_sections_reach_the_report_of_xdist_and_of_junit(project: Project) -> None:
    project.write(FAILS)
    result = project.run("-n", "2", "--junitxml=junit.xml", "-o", "junit_logging=all")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*- netns node a -*"])


def captures(project: Project) -> list[Path]:
    return sorted((project.path / ".netns").rglob("*.pcap"))


@pytest.mark.parametrize("before", [None, unprivileged()], ids=["root", "anybody"])
def test_a_failed_test_leaves_its_captures_and_tells_where(project: Project, before: list[str] | None) -> None:
    project.write(FAILS)
    result = project.run("--netns-pcap", before=before)
    found = captures(project)
    assert [path.name for path in found] == ["a-eth0--r-eth0.pcap", "b-eth0--s-eth1.pcap", "r-eth1--s-eth0.pcap"]
    assert found[0].parent.name == "test_it.py_test_it"
    assert all(b"said-before-it-failed" in path.read_bytes() for path in found)
    result.stdout.fnmatch_lines(["*- netns captures -*", *(str(found[number]) for number in (0, 2, 1))])


def test_of_many_captures_that_are_incomplete_some_are_named(project: Project) -> None:
    project.write(
        "from vethlib.topology.live.capture import Capture\n"
        "Capture.missing = property(lambda self: dict.fromkeys(self.files, 'cut off'))\n"
        "def test_it(topology):\n    topology.star(20)\n    assert False\n"
    )
    told = project.run("--netns-pcap").stdout.str()
    assert "20 files in " in told
    assert 0 < told.count("(cut off)") <= 8
    assert f"{20 - told.count('(cut off)')} more" in told


def test_a_test_that_passes_leaves_no_capture_and_no_directory(project: Project) -> None:
    project.write(PASSES)
    project.run("--netns-pcap").assert_outcomes(passed=1)
    assert not (project.path / ".netns").exists()


def test_a_test_that_fails_in_its_teardown_leaves_its_captures(project: Project) -> None:
    project.write(
        "import pytest\n@pytest.fixture\ndef bad():\n    yield\n    raise RuntimeError\n"
        "def test_it(bad, veth): pass\ndef test_good(veth): pass\n"
    )
    result = project.run("--netns-pcap")
    result.assert_outcomes(passed=2, errors=1)
    assert [path.parent.name for path in captures(project)] == ["test_it.py_test_it"]
    result.stdout.fnmatch_lines(["*- netns captures -*", str(captures(project)[0])])


_SHARED = """
import pytest
@pytest.fixture(scope="session")
def net(session_topology): return session_topology("s1 -- s2")
@pytest.fixture
def interrupted():
    yield
    raise KeyboardInterrupt
def test_first(net): pass
def test_next(veth): pass
"""


@pytest.mark.parametrize(
    ("last", "stay"),
    [
        ("def test_last(topology):\n    topology('a -- b')\n    raise KeyboardInterrupt", ["test_it.py_test_last"]),
        ("def test_last(topology):\n    topology('a -- b')\n    pytest.exit('enough')", ["test_it.py_test_last"]),
        ("def test_last(interrupted, veth): pass", ["test_it.py_test_last"]),
        ("def test_last(veth, interrupted): pass", ["test_it.py_test_last"]),
        ("def test_last(net): raise KeyboardInterrupt", ["session"]),
        ("def test_last(): raise KeyboardInterrupt", []),
        ("def test_last(): pytest.exit('enough')", []),
        ("def test_last(): assert False\ndef test_never(net): pass", []),
        ("def test_last(veth): assert False\ndef test_never(net): pass", ["test_it.py_test_last"]),
        ("def test_last(net): assert False\ndef test_never(net): pass", ["session"]),
    ],
)
def test_a_run_that_ends_early_leaves_the_captures_of_the_test_that_ended_it(
    project: Project, last: str, stay: list[str]
) -> None:
    project.write(_SHARED + last)
    result = project.run("--netns-pcap", "-x", "-p", "no:cacheprovider")
    found = captures(project)
    assert [path.parent.name for path in found] == stay
    result.stdout.fnmatch_lines([str(path) for path in found])
    if not stay:
        assert not (project.path / ".netns").exists()


def test_a_directory_that_was_there_before_stays(project: Project) -> None:
    project.write(PASSES)
    (project.path / "mine").mkdir()
    project.run("--netns-pcap", "--netns-dir=mine").assert_outcomes(passed=1)
    assert list((project.path / "mine").iterdir()) == []


@pytest.mark.parametrize("ignore", ["*\n!.gitignore\n", "# by pytest's plugin netns\n*\n", ""])
@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_a_gitignore_that_was_there_before_stays(project: Project, ignore: str, workers: list[str]) -> None:
    project.write(PASSES)
    kept = project.write(ignore, "captures/.gitignore")
    project.run("--netns-pcap=failed", "--netns-dir=captures", *workers).assert_outcomes(passed=1)
    assert [path.name for path in (project.path / "captures").iterdir()] == [".gitignore"]
    assert kept.read_text() == ignore


def test_workers_share_the_directory_and_its_gitignore(project: Project) -> None:
    project.write(
        "import pytest\n@pytest.mark.parametrize('number', range(60))\n"
        "def test_it(topology, number):\n    topology('a -- b', ipv6=False)\n    assert number\n"
    )
    project.run("-n", "4", "--netns-pcap").assert_outcomes(passed=59, failed=1)
    assert (project.path / ".netns" / ".gitignore").exists()
    assert len(captures(project)) == 1


def test_captures_are_nothing_for_git_to_show(project: Project) -> None:
    project.write(FAILS)
    project.run("--netns-pcap").assert_outcomes(failed=1)
    assert (project.path / ".netns" / ".gitignore").read_text().endswith("\n*\n")


def test_captures_of_all_tests_stay_where_that_is_wanted(project: Project) -> None:
    project.write(PASSES)
    project.run("--netns-pcap=all", "--netns-dir=somewhere/else").assert_outcomes(passed=1)
    assert len(list((project.path / "somewhere" / "else").rglob("*.pcap"))) == 3


def test_the_marker_captures_for_one_test_only(project: Project) -> None:
    project.write(
        "import pytest\n@pytest.mark.netns(pcap='all')\ndef test_with(veth): pass\ndef test_without(veth): pass\n"
    )
    project.run().assert_outcomes(passed=2)
    assert [path.parent.name for path in captures(project)] == ["test_it.py_test_with"]


def test_two_pairs_of_a_test_have_captures_of_their_own(project: Project) -> None:
    project.write("def test_it(veth, veth_factory):\n    veth_factory()\n")
    project.run("--netns-pcap=all").assert_outcomes(passed=1)
    assert [str(path.relative_to(project.path / ".netns")) for path in captures(project)] == [
        "test_it.py_test_it/2/a-eth0--b-eth0.pcap",
        "test_it.py_test_it/a-eth0--b-eth0.pcap",
    ]


@pytest.fixture
def holders() -> Iterator[list[int]]:
    """The process ids of holders, which are ended with the test if they still exist."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            pass


def kept_by(result: pytest.RunResult, holders: list[int]) -> tuple[int, list[str]]:
    """Return the holder, and the words before a command that enters its namespaces."""
    found = re.findall(r"a shell in one:  (nsenter --target (\d+) .*?)ip netns exec", result.stdout.str())
    assert len(set(found)) == 1
    assert len(found) == 2  # in the report, and at the end of the run
    pid = int(found[0][1])
    holders.append(pid)
    return pid, found[0][0].split()


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "xdist"])
@pytest.mark.parametrize("before", [None, unprivileged()], ids=["root", "anybody"])
def test_a_failed_topology_stays_up_and_can_be_entered_and_ended(
    project: Project, holders: list[int], before: list[str] | None, workers: list[str]
) -> None:
    project.write(FAILS)
    result = project.run("--netns-keep", *workers, before=before)
    result.assert_outcomes(failed=1)
    pid, enter = kept_by(result, holders)

    def inside(*command: str) -> str:
        return subprocess.run([*enter, *command], check=True, capture_output=True, text=True).stdout

    assert sorted(line.split()[0] for line in inside("ip", "netns").splitlines()) == ["a", "b", "r", "s"]
    # A packet from a to b still takes its way through the router and the switch.
    inside("ip", "netns", "exec", "a", "python3", "-c", _CONNECT_TO_CLOSED_PORT)
    sleeping = [int(line) for line in inside("ip", "netns", "pids", "b").split()]
    assert [Path(f"/proc/{one}/comm").read_text() for one in sleeping] == ["sleep\n"]
    namespace = os.stat(f"/proc/{sleeping[0]}/ns/net").st_ino
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 10
    while runs(pid) or runs(sleeping[0]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert namespace not in {_namespace(one) for one in filter(str.isdecimal, os.listdir("/proc"))}


_CONNECT_TO_CLOSED_PORT = """
import socket
try:
    socket.create_connection(("10.0.1.2", 9), timeout=5)
except ConnectionRefusedError:
    pass
"""


def _namespace(pid: str) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return 0


def test_kept_nodes_of_one_name_are_told_apart(project: Project, holders: list[int]) -> None:
    project.write("def test_it(veth, veth_factory):\n    veth_factory()\n    assert False\n")
    _, enter = kept_by(project.run("--netns-keep"), holders)
    told = subprocess.run([*enter, "ip", "netns"], check=True, capture_output=True, text=True).stdout
    assert sorted(line.split()[0] for line in told.splitlines()) == ["a", "a.2", "b", "b.2"]


def test_the_names_in_run_netns_are_the_holders_own(project: Project, holders: list[int]) -> None:
    project.write(FAILS)
    before = os.listdir("/run/netns")
    kept_by(project.run("--netns-keep", "--netns-isolate=never"), holders)
    assert os.listdir("/run/netns") == before


def test_a_test_that_passes_is_not_kept(project: Project) -> None:
    project.write(PASSES)
    result = project.run("--netns-keep")
    result.assert_outcomes(passed=1)
    assert "nsenter" not in result.stdout.str()


def test_captures_of_a_module_are_each_workers_own(project: Project) -> None:
    project.write(
        "import pytest, time\n@pytest.mark.parametrize('n', range(4))\n"
        "def test_it(module_veth, n):\n    time.sleep(0.3)\n    assert n\n"
    )
    project.run("-n", "2", "--netns-pcap=all").assert_outcomes(passed=3, failed=1)
    assert {path.parent.name for path in captures(project)} == {"test_it.py-gw0", "test_it.py-gw1"}


def test_two_tests_whose_ids_are_one_file_name_keep_their_captures_apart(project: Project) -> None:
    project.write("import pytest\n@pytest.mark.parametrize('it', ['a/b', 'a b'])\ndef test_it(veth, it): pass\n")
    project.run("--netns-pcap=all").assert_outcomes(passed=2)
    assert {str(path.parent.relative_to(project.path / ".netns")) for path in captures(project)} == {
        "test_it.py_test_it_a_b",
        "test_it.py_test_it_a_b/2",
    }


@pytest.mark.parametrize("character", ["網", "é", "x"])
def test_a_test_with_a_long_name_has_a_directory(project: Project, character: str) -> None:
    project.write(f"def test_{character * 150}(veth): pass\n")
    project.run("--netns-pcap=all").assert_outcomes(passed=1)
    assert len(captures(project)) == 1


@pytest.mark.parametrize("directory", ["x" * 300, "a/" + "x" * 300, "x/" * 3000])
def test_a_directory_that_cannot_exist_is_an_error_of_the_option(project: Project, directory: str) -> None:
    project.write(PASSES)
    result = project.run("--netns-pcap", f"--netns-dir={directory}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --netns-dir: *: File name too long"])


def test_a_marker_whose_captures_cannot_be_written_fails_the_test_with_the_option(project: Project) -> None:
    project.write(
        "import pytest\n@pytest.mark.netns(pcap='all')\ndef test_it(veth): pass\ndef test_other(veth): pass\n"
    )
    project.write("", "captures")
    result = project.run("--netns-dir=captures")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["captures cannot be written to */captures/*; see --netns-dir"])
