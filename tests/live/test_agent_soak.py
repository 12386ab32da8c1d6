"""An agent with 500 interfaces for a long time: values change, namespaces end, others meddle, and it is killed.

At every pause the host is as the files say, and what the agent and the kernel hold has not grown. Ten seconds, a
minute in CI; `make soak SECONDS=1800` for longer.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live.agents import some_fields, started
from tests.live.convergence import assert_converges
from tests.programs import stat_fields
from tests.witness import ip, poll
from vethlib import End, Session, Veth, ns

pytestmark = pytest.mark.slow

DURATION = float(os.environ.get("VETHLIB_SOAK", "60" if os.environ.get("CI") else "10"))
PAUSE = 5.0  # seconds of work between two looks

PAIRS = 250
LASTING = [f"n{number}" for number in range(12)]
MORTAL = [f"m{number}" for number in range(4)]
PAGE = os.sysconf("SC_PAGE_SIZE")


class Soak:
    """The files, the agent, and those who meddle."""

    def __init__(self, store: Path, choose: random.Random) -> None:
        self.store = store
        self.choose = choose
        self.values: dict[str, dict[str, Any]] = {}
        self.done: Counter[str] = Counter()
        for number in range(PAIRS):
            for side in "ab":
                self.put(f"v{number}{side}")
        self.agent = started(store)

    def put(self, *names: str) -> None:
        for name in names:
            self.values[name] = self._some_value(name)
            (self.store / ".new").write_text(json.dumps(self.values[name]))
            (self.store / ".new").rename(self.store / f"{name}.json")

    def _some_value(self, name: str) -> dict[str, Any]:
        choose, number, side = self.choose, int(name[1:-1]), name[-1]
        value: dict[str, Any] = {"name": name, "enabled": choose.random() < 0.95}
        value["veth"] = {"peer_if_name": f"v{number}{'b' if side == 'a' else 'a'}"}
        if side == "b" or choose.random() < 0.5:
            value["namespace"] = {"type": 2, "name": choose.choice(LASTING * 2 + MORTAL)}
        return value | some_fields(choose)

    def delete(self, name: str) -> None:
        self.values.pop(name, None)
        (self.store / f"{name}.json").unlink(missing_ok=True)

    def kill(self) -> None:
        os.kill(self.agent, signal.SIGKILL)
        _, status = os.waitpid(self.agent, 0)
        assert os.WIFSIGNALED(status), "the agent ended by itself"
        self.agent = started(self.store)

    def meddle(self) -> None:
        """Change a link behind the agent's back; many changes fail, because the link does not exist at present."""
        name = self.choose.choice(list(self.values))
        netns = self.values[name].get("namespace", {}).get("name", "")
        command = self.choose.choice(
            [
                f"link set {name} mtu 1280",
                f"link set {name} down",
                f"link del dev {name}",
                f"link set {name} name x{name}",
                f"link set {name} netns {self.choose.choice(LASTING)}",
                f"address flush dev {name}",
                f"address add 10.99.0.1/32 dev {name}",
                f"link set {name} address 02:00:00:00:00:77",
            ]
        )
        program = ["ip", "-n", netns] if netns else ["ip"]
        subprocess.run([*program, *command.split()], capture_output=True, check=False)

    def end_a_namespace(self) -> None:
        name = self.choose.choice(MORTAL)
        if name in ns.names():
            ns.remove(name)

    def make_a_namespace(self) -> None:
        subprocess.run(["ip", "netns", "add", self.choose.choice(MORTAL)], capture_output=True, check=False)

    def step(self) -> None:
        """Something happens."""
        choose = self.choose
        names = [f"v{choose.randrange(PAIRS)}{side}" for side in "ab"]
        what, act = choose.choices(
            [
                ("put", lambda: self.put(choose.choice(names))),
                ("delete", lambda: self.delete(choose.choice(names))),
                ("put both", lambda: self.put(*names)),
                ("meddle", self.meddle),
                ("end of a namespace", self.end_a_namespace),
                ("new namespace", self.make_a_namespace),
                ("kill", self.kill),
            ],
            [30, 8, 15, 25, 1, 1, 0.5],
        )[0]
        act()
        self.done[what] += 1
        time.sleep(choose.random() * 0.02)

    def settle(self, others: list[tuple[str, str]]) -> None:
        """Wait until the host matches the files, which it does once nobody meddles any longer."""
        for value in self.values.values():
            # Of what nobody wants the foreign addresses would stay, as they are to.
            value.setdefault("ip_addresses", [])
        os.kill(self.agent, signal.SIGHUP)
        _take_foreign_addresses()
        assert_converges(self.values.values(), others, timeout=90)

    def _fds(self) -> int:
        """How many descriptors the agent has while it waits; at work it has those of the namespaces it is in, too."""
        assert poll(self._rests), "it does not come to rest"
        return len(self.open_files())

    def keeps_few_files(self, number: int) -> bool:
        """Whether it comes to have no more: where it seemed to rest, it may have waited for the kernel amid work."""
        return poll(lambda: len(self.open_files()) <= number)

    def _rests(self) -> bool:
        before = self._time()
        time.sleep(0.15)
        return self._time() == before

    def _time(self) -> tuple[str, ...]:
        """Its state, and the ticks it has used (proc_pid_stat(5))."""
        state, *rest = stat_fields(self.agent)
        return state, rest[10], rest[11]

    def open_files(self) -> list[str]:
        return sorted(os.readlink(entry.path) for entry in os.scandir(f"/proc/{self.agent}/fd"))

    def held(self) -> dict[str, int]:
        """What the agent and the host hold now."""
        process = Path(f"/proc/{self.agent}")
        return {
            "fds": self._fds(),
            "KiB": int((process / "statm").read_text().split()[1]) * PAGE // 1024,
            "netnsids": len(ip("netns", "list-id") or ()),
            "names": len(ns.names()),
        }


def _is_mounted(netns: str) -> bool:
    return os.stat(f"/run/netns/{netns}").st_dev == os.stat("/proc/self/ns/net").st_dev


def _take_foreign_addresses() -> None:
    for netns in ("", *ns.names()):
        for link in ip("address", netns=netns) if not netns or _is_mounted(netns) else ():
            if any(one["local"] == "10.99.0.1" for one in link["addr_info"]):
                program = ["ip", "-n", netns] if netns else ["ip"]
                command = f"address del 10.99.0.1/32 dev {link['ifname']}"
                subprocess.run([*program, *command.split()], capture_output=True, check=False)


def test_an_agent_keeps_five_hundred_interfaces_through_everything(
    session: Session, make_netns: Callable[..., None], tmp_path: Path
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}, {DURATION:.0f} s")
    make_netns(*LASTING)
    session.create(Veth(End("foreign"), End("foreign", "n0")))
    others = [("", "foreign"), ("n0", "foreign")]
    soak = Soak(tmp_path, random.Random(seed))
    begin = time.monotonic()
    first: dict[str, int] = {}
    held: dict[str, int] = {}
    try:
        soak.settle(others)
        while not held or time.monotonic() - begin < DURATION:
            pause = time.monotonic() + PAUSE
            while time.monotonic() < pause:
                soak.step()
            soak.settle(others)
            held = soak.held()
            print(f"{time.monotonic() - begin:6.0f} s  {held}  {dict(soak.done)}", flush=True)
            first = first or held
            # One event socket and two more for every 512 namespaces, and the watches of two directories: it is few.
            assert soak.keeps_few_files(first["fds"] + 2), soak.open_files()
            assert held["netnsids"] <= len(LASTING) + len(MORTAL)
        assert held["KiB"] < first["KiB"] * 1.2 + 4096
        for name in list(soak.values):
            soak.delete(name)
        assert_converges([], others, timeout=90)
        assert set(ns.names()) <= {*LASTING, *MORTAL}
    finally:
        os.kill(soak.agent, signal.SIGTERM)
        _, status = os.waitpid(soak.agent, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert poll(lambda: len(ip("link")) == 2)  # lo and the foreign one
