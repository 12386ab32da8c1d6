"""Honest tenants beside a hostile one, a hostile writer of the store and a hostile user of the host.

The test measures what the honest tenants notice: how long their own pair is missing after a deletion, how long a change
of their configuration takes, whether the health check answers, and how long SIGTERM takes during the attacks. Some
seconds in the suite; `make chaos SECONDS=600` for longer, with closer bounds.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import random
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.writer import FILES
from tests.conftest import PRIVILEGED
from tests.witness import poll
from vethlib import ns

pytestmark = pytest.mark.slow

LONG = "VETHLIB_CHAOS" in os.environ
DURATION = float(os.environ.get("VETHLIB_CHAOS", "8"))
ROOT = Path(__file__).parents[2]
LABEL = "chaos"
PORT = 9750
PAIRS = 40
LAP = 12.0
"""The least seconds between two deletions of one pair: more frequent ones count as a fight, and have to wait."""

NOBODY = 65534

SIOCGIFFLAGS, SIOCGIFMTU, SIOCGIFINDEX = 0x8913, 0x8921, 0x8933  # include/uapi/linux/sockios.h
IFF_RUNNING = 0x40

MEDIAN = 0.5
"""Seconds that an honest tenant's repair takes, half of the time."""
WORST = 3.0 if LONG else 10.0
"""Seconds that it takes at most. In the suite the machine has other tests to run, beside three attackers: what those
keep a program waiting that is not attacked comes on top."""


@dataclass
class Times:
    """The measurements of the honest tenants, in seconds."""

    repairs: list[float] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        told = []
        for name in ("repairs", "changes", "health"):
            times: list[float] = getattr(self, name)
            if times:
                median, worst = statistics.median(times), max(times)
                told.append(f"{len(times)} {name}: median {median:.3f} s, worst {worst:.3f} s")
        return "; ".join(told)


def _value(name: str, peer: str, **more: Any) -> str:
    return json.dumps({"name": name, "enabled": True, "veth": {"peer_if_name": peer}} | more)


def _put(store: Path, name: str, text: str) -> None:
    (store / ".honest").write_text(text)
    (store / ".honest").rename(store / f"{name}.json")


def _put_pair(store: Path, number: int, netns: str, mtu: int = 1500) -> None:
    a, b = f"h{number}a", f"h{number}b"
    _put(store, a, _value(a, b, mtu=mtu, ip_addresses=[f"10.200.{number}.1/24"]))
    _put(store, b, _value(b, a, mtu=mtu, namespace={"type": 2, "name": netns}))


def _ask(name: str, request: int) -> int:
    """Return a field of a link in home, 0 without such a link; by ioctl, because ``ip`` takes longer than a repair."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            answer = fcntl.ioctl(asking, request, struct.pack("16s24x", name.encode()))
        except OSError:
            return 0
    form = "=16xH" if request == SIOCGIFFLAGS else "=16xi"
    return int(struct.unpack_from(form, answer)[0])


def _works(name: str, mtu: int | None = None) -> bool:
    """Whether the link is there and its other end is up, too."""
    return bool(_ask(name, SIOCGIFFLAGS) & IFF_RUNNING) and mtu in (None, _ask(name, SIOCGIFMTU))


class Honest:
    """Tenants that only want their pairs, and measure how well they are served."""

    def __init__(self, store: Path, choose: random.Random) -> None:
        self.store = store
        self.choose = choose
        self.times = Times()
        self._deleted = dict.fromkeys(range(PAIRS), 0.0)

    def step(self) -> None:
        number = self.choose.randrange(PAIRS)
        if time.monotonic() - self._deleted[number] > LAP:
            self._delete(number)
            self._deleted[number] = time.monotonic()
        else:
            self._change(number)
        self._check_health()
        time.sleep(self.choose.random() * 0.2)

    def _delete(self, number: int) -> None:
        name = f"h{number}a"
        before = _ask(name, SIOCGIFINDEX)
        began = time.monotonic()  # `ip` returns so late (synchronize_net) that the pair may be back by then
        subprocess.run(["ip", "link", "del", name], check=True)
        _until(lambda: _works(name) and _ask(name, SIOCGIFINDEX) != before, f"{name} is not back")
        self.times.repairs.append(time.monotonic() - began)

    def _change(self, number: int) -> None:
        mtu = self.choose.randrange(1300, 1500)
        _put_pair(self.store, number, f"n{number % 4}", mtu)
        name = f"h{number}a"
        self.times.changes.append(_until(lambda: _works(name, mtu), f"{name} has another MTU than {mtu}"))

    def _check_health(self) -> None:
        began = time.monotonic()
        asking = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
        try:
            asking.request("GET", "/healthz")
            assert asking.getresponse().status == 200
        finally:
            asking.close()
        self.times.health.append(time.monotonic() - began)


def _until(condition: Callable[[], bool], complaint: str) -> float:
    began = time.monotonic()
    assert poll(condition, 30), complaint
    return time.monotonic() - began


@pytest.fixture
def attackers() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start attackers, and ensure that they end, and that none of them got what it must not get."""
    started: list[subprocess.Popen[str]] = []

    def start(who: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", f"tests.chaos.{who}", *map(str, arguments)]
        started.append(subprocess.Popen(command, cwd=ROOT, text=True, **options))
        return started[-1]

    yield start
    for one in started:
        if one.poll() is None:
            one.terminate()
        one.wait(60)
        if one.stdout is not None:
            one.stdout.close()


def _resident(pid: int) -> int:
    """KiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def _largest(sizes: list[int], begin: float, end: float) -> int:
    """The largest size in this part of the steps, of which a busy machine makes few."""
    first, last = int(begin * len(sizes)), int(end * len(sizes))
    return max(sizes[first : max(last, first + 1)])


@pytest.mark.usefixtures("home")
@pytest.mark.skipif(not PRIVILEGED, reason="it takes another user")
def test_honest_tenants_hardly_notice_hostile_ones(
    make_netns: Callable[..., None], attackers: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}, {DURATION:.0f} s")
    make_netns("evil", *(f"n{number}" for number in range(4)))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    store, scratch = tmp_path / "store", tmp_path / "scratch"
    store.mkdir()
    scratch.mkdir()
    for number in range(PAIRS):
        _put_pair(store, number, f"n{number % 4}")
    _put(store, "eva", _value("eva", "evb", ip_addresses=["10.201.0.1/24"]))
    _put(store, "evb", _value("evb", "eva", namespace={"type": 2, "name": "evil"}))
    squatter = attackers("local_user", NOBODY, LABEL, PORT, DURATION + 3, seed, stdout=subprocess.PIPE)
    assert squatter.stdout is not None
    squatter.stdout.readline()  # it has the names before the agent

    awaited = ["eva", *(f"h{number}a" for number in range(PAIRS))]
    options = ["--store", f"dir:{store}", "--label", LABEL, "--docker", "off", "--metrics", f"127.0.0.1:{PORT}"]
    errors = tmp_path / "errors"
    with errors.open("wb") as log:
        agent = subprocess.Popen([sys.executable, "-m", "vethlib", "agent", *options], stderr=log, cwd=ROOT)
    try:
        assert poll(lambda: agent.poll() is not None or all(map(_works, awaited)), 30), errors.read_text()[-2000:]
        assert agent.poll() is None, errors.read_text()[-2000:]
        running = [
            attackers("tenant", "evil", "evb", LABEL, "h0a", DURATION, seed),
            attackers("writer", store, scratch, "h1a", DURATION, seed),
            squatter,
        ]
        bystander = attackers("machine", scratch / "bystander", DURATION, stdout=subprocess.PIPE)
        honest = Honest(store, random.Random(seed))
        begin = told = time.monotonic()
        sizes: list[int] = []  # KiB
        while (elapsed := time.monotonic() - begin) < DURATION - 1:
            honest.step()
            sizes.append(_resident(agent.pid))
            if LONG and time.monotonic() - told > 10:
                told = time.monotonic()
                print(f"{elapsed:6.0f} s  {sizes[-1]} KiB  {honest.times}", flush=True)
        assert agent.poll() is None, errors.read_text()[-2000:]
        early, late = _largest(sizes, 0.25, 0.5), _largest(sizes, 0.75, 1.0)
        print(f"{honest.times}; at most {early} KiB in the second quarter of the time, {late} KiB in the last")
        assert bystander.stdout is not None
        stall = 0.0 if LONG else float(bystander.stdout.readline())
        print(f"the machine: {stall:.3f} s")
        assert statistics.median(honest.times.repairs) < (MEDIAN if LONG else WORST)
        assert max(honest.times.repairs + honest.times.changes + honest.times.health) < WORST + stall
        assert late < early * 1.25 + 65536

        began = time.monotonic()
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(30) == 0
        stopped = time.monotonic() - began
        print(f"SIGTERM: {stopped:.3f} s")
        assert stopped < (1.0 if LONG else WORST)
        for one in running:
            assert one.wait(30) == 0
    finally:
        if agent.poll() is None:
            agent.kill()
            agent.wait()

    _assert_all_is_well_afterwards(store, options)


def _assert_all_is_well_afterwards(store: Path, options: list[str]) -> None:
    """Whatever was left behind, an agent that starts now brings the honest pairs into their desired state."""
    done = subprocess.run(
        [sys.executable, "-m", "vethlib", "agent", *options, "--once", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    for number in range(PAIRS):
        assert _works(f"h{number}a"), done.stderr[-2000:]
    for number in range(FILES):
        (store / f"wicked{number}.json").unlink(missing_ok=True)
    assert set(ns.names()) <= {"evil", "n0", "n1", "n2", "n3"}
