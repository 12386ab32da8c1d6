"""The systemd unit grants exactly what an agent needs. No systemd runs for this."""

from __future__ import annotations

import configparser
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.witness import names

UNIT = Path(__file__).parents[2] / "packaging/systemd/vethlib@.service"
# Whatever gives a service a mount namespace of its own (systemd.exec(5)): what it mounts in /run/netns the host would
# not see.
OF_MOUNTS = (
    *("PrivateTmp", "PrivateDevices", "PrivateMounts", "ProtectSystem", "ProtectHome", "ProtectProc", "ProcSubset"),
    *("ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups", "ReadWritePaths"),
    *("ReadOnlyPaths", "InaccessiblePaths", "BindPaths", "TemporaryFileSystem", "RootDirectory", "RootImage"),
    *("MountAPIVFS", "StateDirectory", "RuntimeDirectory", "NetworkNamespacePath", "PrivateNetwork", "DynamicUser"),
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="capabilities are root's to give away")


def settings() -> dict[str, str]:
    unit = configparser.RawConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(UNIT)
    return dict(unit["Service"])


def capabilities() -> list[str]:
    return [name.removeprefix("CAP_").lower() for name in settings()["CapabilityBoundingSet"].split()]


def test_the_unit_gives_the_agent_no_mount_namespace_of_its_own() -> None:
    assert not settings().keys() & set(OF_MOUNTS)
    assert settings()["RestrictNamespaces"] == "net"
    assert settings()["Type"] == "notify"


def test_systemd_finds_nothing_to_complain_of(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    text = UNIT.read_text().replace("ExecStart=vethctl", f"ExecStart={sys.executable} -m vethlib")
    unit = tmp_path / "vethlib@one.service"
    # Whether there is a man page, and docker's unit, is a matter of the host.
    unit.write_text("\n".join(line for line in text.splitlines() if not line.startswith("Documentation=")))
    verify = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    rate = ["systemd-analyze", "security", "--offline=true", "--threshold=50", str(unit)]
    done = subprocess.run(rate, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout  # an exposure of at most 5.0


Agent = Callable[[list[str]], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def agent(home: object, spawn: Callable[[str], int], make_netns: Callable[..., None], tmp_path: Path) -> Agent:
    """Runs an agent with these capabilities and no others: a pair from a new named namespace to one of a process, and
    one at home.
    """
    make_netns("old")
    pid = spawn("old")
    for name, peer, namespace in (
        ("v1", "v2", {"type": 2, "name": "new"}),
        ("v2", "v1", {"type": 0, "pid": pid}),
        ("v3", "v4", None),
        ("v4", "v3", None),
    ):
        value = {"name": name, "enabled": True, "veth": {"peer_if_name": peer}, "ip_addresses": ["10.9.0.1/24"]}
        (tmp_path / f"{name}.json").write_text(json.dumps(value | ({"namespace": namespace} if namespace else {})))

    def run(caps: list[str]) -> subprocess.CompletedProcess[str]:
        bounds = ",".join(["-all", *(f"+{cap}" for cap in caps)])
        command = ["setpriv", f"--bounding-set={bounds}", "--inh-caps=-all", "--no-new-privs", sys.executable]
        command += ["-m", "vethlib", "agent", "--store", f"dir:{tmp_path}", "--docker", "off", "--once"]
        command += ["--status-dir", str(tmp_path / "status")]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)

    return run


@needs_root
def test_with_the_capabilities_of_the_unit_an_agent_does_all_its_work(agent: Agent) -> None:
    done = agent(capabilities())
    assert done.returncode == 0, done.stderr
    assert names("new") == {"v1"}
    assert names("old") == {"v2"}
    assert names() == {"v3", "v4"}


@needs_root
@pytest.mark.parametrize("missing", capabilities())
def test_without_any_of_them_it_says_what_it_lacks(agent: Agent, missing: str) -> None:
    done = agent([cap for cap in capabilities() if cap != missing])
    assert done.returncode == 2
    assert f"CAP_{missing.upper()}" in done.stderr
