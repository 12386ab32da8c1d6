"""Hosts that refuse one system call, or one family of sockets: systemd, seccomp."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.live.applying import value
from tests.restricted_host import can_refuse
from tests.witness import names
from vethlib import ns

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not can_refuse(), reason="the numbers of system calls here are unknown")

AF_UNIX = 1
"""No other family that vethlib uses has this bit (AF_NETLINK 16, AF_INET 2, AF_INET6 10)."""

_PROGRAM = """
import runpy, sys
from tests.restricted_host import refuse
for refused in sys.argv.pop(1).split():
    call, flag, error = refused.split(":")
    refuse(call, int(flag) if flag else None, int(error))
runpy.run_module("vethlib", run_name="__main__", alter_sys=True)
"""


def vethctl(refused: Sequence[tuple[str, int | None, int]], *args: str) -> subprocess.CompletedProcess[str]:
    """Run vethctl where these calls, with this flag in their first argument, fail with this error."""
    text = " ".join(f"{call}:{'' if flag is None else flag}:{error}" for call, flag, error in refused)
    command = [sys.executable, "-c", _PROGRAM, text, "--json", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def codes(done: subprocess.CompletedProcess[str]) -> set[str]:
    return {json.loads(line)["code"] for line in done.stderr.splitlines()}


def failed(done: subprocess.CompletedProcess[str]) -> set[tuple[str, str]]:
    """Return the required checks of doctor that have failed, with their codes."""
    return {(each["check"], each["code"]) for each in json.loads(done.stdout) if each["needed"] and not each["ok"]}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with a pair, whose second end is in a namespace that is to be created."""
    for each in (value("veth1", "veth2"), value("veth2", "veth1", "green")):
        (tmp_path / f"{each['name']}.json").write_text(json.dumps(each))
    return tmp_path


@pytest.mark.parametrize("error", [errno.EAFNOSUPPORT, errno.EPERM, errno.EACCES], ids=errno.errorcode.get)
def test_without_unix_sockets_a_configuration_is_applied(home: ns.Netns, files: Path, error: int) -> None:
    refused = [("socket", AF_UNIX, error)]
    done = vethctl(refused, "apply", str(files))
    assert (done.returncode, codes(done)) == (0, {"agent-unknown"})
    assert (names(), names("green")) == ({"veth1"}, {"veth2"})
    assert vethctl(refused, "apply", "--force", str(files)).stderr == ""
    assert vethctl(refused, "apply", "--dry-run", str(files)).returncode == 0


@pytest.mark.parametrize("trial", [(), ("--dry-run",), ("--timeout", "2")], ids=" ".join)
def test_that_it_is_unknown_whether_an_agent_runs_is_reported_once(
    home: ns.Netns, files: Path, trial: tuple[str, ...]
) -> None:
    done = vethctl([("socket", AF_UNIX, errno.EPERM)], "apply", "--missing-netns", "wait", *trial, str(files))
    assert [json.loads(line)["code"] for line in done.stderr.splitlines()].count("agent-unknown") == 1


OF_AGENTS = [["apply", "--try", "30s", "FILES"], ["agent", "--store", "dir:FILES"]]


@pytest.mark.parametrize("command", [*OF_AGENTS, ["confirm"], ["apply", "FILES"]], ids=" ".join)
def test_a_lack_of_memory_for_unix_sockets_is_not_taken_for_a_sandbox(
    home: ns.Netns, files: Path, command: list[str]
) -> None:
    done = vethctl([("socket", AF_UNIX, errno.ENOMEM)], *(word.replace("FILES", str(files)) for word in command))
    assert (done.returncode, names()) == (2, set())
    assert "memory.max" in done.stderr
    assert "RestrictAddressFamilies" not in done.stderr
    assert "bug" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["status", "--label", "q"],
        ["status", "--watch", "--label", "q"],
        ["confirm", "--label", "q"],
        ["describe", "veth1"],
        ["apply", "--try", "30s", "FILES"],
        ["agent", "--store", "dir:FILES"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_what_needs_unix_sockets_says_so(home: ns.Netns, files: Path, command: list[str]) -> None:
    done = vethctl([("socket", AF_UNIX, errno.EAFNOSUPPORT)], *(word.replace("FILES", str(files)) for word in command))
    assert done.returncode == 2
    assert "RestrictAddressFamilies" in done.stderr
    assert "bug" not in done.stderr
    assert names() == set()


def test_without_unix_sockets_doctor_says_so(home: ns.Netns) -> None:
    done = vethctl([("socket", AF_UNIX, errno.EAFNOSUPPORT)], "doctor")
    assert done.stderr == ""
    assert failed(done) == {("UNIX sockets", "not-permitted")}


@pytest.mark.parametrize("command", ["show", "graph", "list --store dir:FILES"])
def test_what_does_not_need_unix_sockets_goes_on(home: ns.Netns, files: Path, command: str) -> None:
    args = command.replace("FILES", str(files)).split()
    done, usual = (vethctl(refused, *args) for refused in ([("socket", AF_UNIX, errno.EPERM)], []))
    assert (done.returncode, done.stderr) == (usual.returncode, usual.stderr)


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS], ids=errno.errorcode.get)
def test_without_limits_of_the_process_an_agent_works_and_doctor_finds_nothing(
    home: ns.Netns, files: Path, error: int
) -> None:
    refused = [("prlimit64", None, error)]
    done = vethctl(refused, "agent", "--once", "--store", f"dir:{files}")
    assert (done.returncode, "unexpected" in done.stderr) == (0, False)
    assert (names(), names("green")) == ({"veth1"}, {"veth2"})
    done = vethctl(refused, "doctor")
    assert (done.returncode, done.stderr, failed(done)) == (0, "", set())


def test_without_limits_of_the_process_topologies_and_followers_are_built(home: ns.Netns) -> None:
    program = (
        "from vethlib.follow import Follower; from vethlib.topology import Topology\n"
        "with Follower() as follower: follower.follow(['pid:1'])\n"
        "with Topology.build('a -- b') as net: assert net['a'].run(['true']).returncode == 0\n"
        "with Topology.build('a -- b') as net: net['a'].start(['true']).wait(60)\n"
    )
    refuse = f"from tests.restricted_host import refuse; refuse('prlimit64', None, {errno.EPERM})\n"
    subprocess.run([sys.executable, "-c", refuse + program], cwd=ROOT, timeout=120, check=True)


@pytest.mark.parametrize("call", ["statfs", "fstatfs"])
def test_doctor_goes_on_where_file_systems_may_not_be_asked(home: ns.Netns, call: str) -> None:
    done = vethctl([("statfs", None, errno.EPERM), (call, None, errno.EPERM)], "doctor")
    assert (done.returncode, done.stderr, failed(done)) == (0, "", set())
    (proc,) = (each for each in json.loads(done.stdout) if each["check"] == "/proc")
    assert proc["ok"]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("timerfd_create", errno.ENOSYS),
        ("timerfd_create", errno.EPERM),
        ("eventfd2", errno.ENOSYS),
        ("eventfd2", errno.EPERM),
    ],
    ids=str,
)
def test_doctor_finds_what_keeps_an_agent_from_starting(home: ns.Netns, files: Path, call: str, error: int) -> None:
    refused = [(call, None, error)]
    agent = vethctl(refused, "agent", "--once", "--store", f"dir:{files}")
    assert agent.returncode == 2
    assert "bug" not in agent.stderr
    done = vethctl(refused, "doctor")
    assert (done.stderr, failed(done)) == ("", {("events", "refused")})


@pytest.mark.parametrize("error", [errno.ENOTTY, errno.EPERM], ids=errno.errorcode.get)
def test_doctor_finds_that_no_kind_of_a_namespace_is_known(home: ns.Netns, error: int) -> None:
    program = "import errno, fcntl\nfrom vethlib.ns import syscalls"
    assert program
    done = vethctl([("ioctl", None, error)], "doctor")
    assert done.stderr == ""
    assert ("events", "refused") in failed(done)


def test_a_namespace_is_named_without_mknod(home: ns.Netns) -> None:
    refused = [("mknodat", None, errno.EPERM)]
    assert vethctl(refused, "netns", "add", "blue").returncode == 0
    with ns.Netns.open("blue") as blue:
        assert blue.identity != home.identity
    assert vethctl(refused, "netns", "add", "blue").returncode == 2
    assert vethctl(refused, "netns", "del", "blue").returncode == 0
    assert ns.names() == []


@pytest.mark.parametrize(
    "look",
    [
        "from vethlib.ns.isolation import isolate; isolate(); print(open(PATH).read())",
        "with Topology.build('a -- b') as net: print(net['a'].run(['cat', PATH], capture_output=True).stdout)",
    ],
    ids=["isolation", "topology"],
)
def test_the_files_of_run_are_seen_without_mknod(home: ns.Netns, look: str) -> None:
    path = Path("/run/vethlib-test")
    path.write_text("hello")
    try:
        refuse = f"from tests.restricted_host import refuse; refuse('mknodat', None, {errno.EPERM})"
        program = f"from vethlib.topology import Topology\n{refuse}\nPATH = {str(path)!r}\n{look}"
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    finally:
        path.unlink()
    assert (done.returncode, "hello" in done.stdout, done.stderr) == (0, True, "")


@pytest.mark.parametrize("command", OF_AGENTS, ids=" ".join)
def test_what_may_not_hold_a_name_says_so(home: ns.Netns, files: Path, command: list[str]) -> None:
    done = vethctl([("bind", None, errno.EACCES)], *(word.replace("FILES", str(files)) for word in command))
    assert done.returncode == 2
    assert "LSM" in done.stderr
    assert "bug" not in done.stderr
    assert names() == set()
