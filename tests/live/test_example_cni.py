"""The CNI plugin among the examples: commands of a runtime, repeated or not, and what the kernel has afterwards."""

from __future__ import annotations

import fcntl
import importlib.util
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.live.applying import reaches
from tests.live.examples import EXAMPLES
from tests.witness import addresses, ip, names, seen
from vethlib import ns

PLUGIN = EXAMPLES / "cni.py"
NETWORK = {"cniVersion": "1.0.0", "name": "pods", "type": "veth-bridge", "bridge": "cni0", "subnet": "10.88.0.0/29"}


class Runtime:
    """What runs the plugin: in this process, because to start a Python for each command takes longer than all of it."""

    def __init__(self, capsys: pytest.CaptureFixture[str], lock: Path) -> None:
        self._capsys, self._lock = capsys, str(lock)
        spec = importlib.util.spec_from_file_location("cni", PLUGIN)
        assert spec is not None
        assert spec.loader is not None
        self._plugin = importlib.util.module_from_spec(spec)
        with pytest.MonkeyPatch.context() as patching:
            patching.setitem(sys.modules, "cni", self._plugin)  # where its data class looks for it
            spec.loader.exec_module(self._plugin)
        vars(self._plugin)["LOCK"] = self._lock

    def wait_only(self, seconds: float) -> str:
        """Let it wait for its lock that long; return the path of the lock."""
        vars(self._plugin)["PATIENCE"] = seconds
        return self._lock

    def __call__(
        self, command: str, netns: str, *, config: Any = NETWORK, text: str | None = None, **more: str
    ) -> tuple[int, Any]:
        """Give a command for a container that is called as its namespace; the exit code and the answer."""
        stdin = io.StringIO(json.dumps(config) if text is None else text)
        code = self._plugin.main(environment(command, netns) | more, stdin)
        printed = self._capsys.readouterr()
        assert printed.err == ""
        return code, json.loads(printed.out) if printed.out else None


def environment(command: str, netns: str) -> dict[str, str]:
    container = {"CNI_CONTAINERID": f"id-of-{netns}", "CNI_IFNAME": "eth0", "CNI_NETNS": f"/run/netns/{netns}"}
    return container | {"CNI_COMMAND": command}


@pytest.fixture
def cni(capsys: pytest.CaptureFixture[str], home: ns.Netns, tmp_path: Path) -> Runtime:
    return Runtime(capsys, tmp_path / "lock")


def test_it_is_a_program_that_answers_on_its_output(blue: str, tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"  # installed, with another place for its lock than that of the host
    plugin.write_text(PLUGIN.read_text().replace("/run/veth-bridge.lock", f"{tmp_path}/lock"))
    done = subprocess.run(
        [sys.executable, plugin],
        input=json.dumps(NETWORK),
        env=os.environ | environment("ADD", "blue"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["ips"][0]["address"] in addresses("eth0", "blue")
    assert os.access(PLUGIN, os.X_OK)


def test_containers_have_addresses_and_a_default_route_and_reach_each_other(cni: Runtime, blue: str, red: str) -> None:
    code, first = cni("ADD", "blue")
    assert code == 0
    assert first["ips"] == [{"address": "10.88.0.2/29", "gateway": "10.88.0.1", "interface": 2}]
    bridge, outside, inside = first["interfaces"]
    assert bridge == {"name": "cni0", "mac": seen("cni0")["address"]}
    assert outside["mac"] == seen(outside["name"])["address"]
    assert inside == {"name": "eth0", "mac": seen("eth0", "blue")["address"], "sandbox": "/run/netns/blue"}
    assert seen(outside["name"])["master"] == "cni0"
    (default,) = ip("route", "show", "default", netns="blue")
    assert (default["gateway"], default["dev"]) == ("10.88.0.1", "eth0")
    _, second = cni("ADD", "red")
    assert second["ips"][0]["address"] == "10.88.0.3/29"
    assert seen("cni0")["address"] == bridge["mac"]
    assert reaches("blue", "10.88.0.3", "red")
    assert reaches("red", "10.88.0.1", "")


def test_every_command_can_be_repeated(cni: Runtime, blue: str) -> None:
    assert cni("CHECK", "blue")[0] == 1
    first = cni("ADD", "blue")
    index = seen("eth0", "blue")["ifindex"]
    assert cni("ADD", "blue") == first
    assert cni("CHECK", "blue") == (0, None)
    assert seen("eth0", "blue")["ifindex"] == index
    assert len(names()) == 2
    assert cni("DEL", "blue") == (0, None)
    assert (names(), names("blue")) == ({"cni0"}, set())
    assert cni("DEL", "blue") == (0, None)
    ns.remove("blue")
    assert cni("DEL", "blue") == (0, None)
    assert cni("DEL", "blue", CNI_NETNS="") == (0, None)


def test_add_completes_what_an_earlier_one_has_begun(cni: Runtime, blue: str) -> None:
    _, first = cni("ADD", "blue")
    outside = first["interfaces"][1]["name"]
    index = seen("eth0", "blue")["ifindex"]
    ip("route", "delete", "default", netns="blue")
    ip("link", "set", outside, "nomaster")
    assert cni("ADD", "blue") == (0, first)
    assert seen("eth0", "blue")["ifindex"] == index
    assert seen(outside)["master"] == "cni0"
    assert ip("route", "show", "default", netns="blue")[0]["gateway"] == "10.88.0.1"
    ip("address", "delete", "10.88.0.2/29", "dev", "eth0", netns="blue")
    assert cni("CHECK", "blue")[1]["code"] == 101


def test_an_address_is_free_again_after_del(cni: Runtime, blue: str, red: str) -> None:
    smallest = NETWORK | {"subnet": "10.88.0.0/30"}
    assert cni("ADD", "blue", config=smallest)[1]["ips"][0]["address"] == "10.88.0.2/30"
    assert cni("ADD", "red", config=smallest)[1]["code"] == 102
    cni("DEL", "blue", config=smallest)
    assert cni("ADD", "red", config=smallest)[1]["ips"][0]["address"] == "10.88.0.2/30"
    assert addresses("eth0", "red")[0] == "10.88.0.2/30"


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ({"config": NETWORK | {"cniVersion": "0.2.0"}}, 1),
        ({"CNI_COMMAND": "ADDD"}, 4),
        ({"text": "{"}, 6),
        ({"config": NETWORK | {"subnet": "10.88.0.1/29"}}, 7),
        ({"CNI_IFNAME": "a/b"}, 7),
        ({"CNI_NETNS": "/run/netns/gone"}, 100),
    ],
)
def test_a_refusal_has_the_code_of_the_specification_and_leaves_no_link(
    cni: Runtime, blue: str, how: dict[str, Any], code: int
) -> None:
    status, told = cni("ADD", "blue", **how)
    assert (status, told["code"]) == (1, code)
    assert (names() - {"cni0"}, names("blue")) == (set(), set())


def test_it_says_which_versions_it_speaks(cni: Runtime) -> None:
    assert cni("VERSION", "none")[1] == {"cniVersion": "1.0.0", "supportedVersions": ["1.0.0", "1.1.0"]}


def test_whoever_locks_the_plugin_itself_hinders_nobody(cni: Runtime, blue: str) -> None:
    with PLUGIN.open() as plugin:
        fcntl.flock(plugin, fcntl.LOCK_EX)
        assert cni("ADD", blue)[0] == 0
    assert Path(cni.wait_only(10)).stat().st_mode & 0o777 == 0o600


def test_a_lock_that_is_held_is_waited_for_but_not_for_ever(cni: Runtime, blue: str) -> None:
    with open(cni.wait_only(0.1), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, answer = cni("ADD", blue)
        assert (code, answer["code"]) == (1, 11)
        cni.wait_only(60)
        timer = threading.Timer(0.2, lock.close)
        timer.start()
        assert cni("ADD", blue)[0] == 0
        timer.join()


def test_a_link_that_is_planted_for_the_lock_is_not_followed(cni: Runtime, blue: str, tmp_path: Path) -> None:
    lock = Path(cni.wait_only(1))
    lock.unlink(missing_ok=True)
    lock.symlink_to(tmp_path / "made")
    assert cni("ADD", blue)[0] == 1
    lock.unlink()
    assert not (tmp_path / "made").exists()
