"""Fixtures of the tests that need a kernel."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Vethctl, runner
from tests.live.agent_process import Agent
from tests.live.applying import EXAMPLES, Write
from tests.live.other_user import as_other
from tests.live.silent import nobody_waits
from tests.live.warm import WarmPytest
from tests.needs import kernel_is
from tests.witness import counted_fds, host_state, ip, open_fds, poll
from vethlib import End, Session, Veth, ns
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.follow import MemoryResolver
from vethlib.ifindex import noise
from vethlib.ns.files import answers
from vethlib.pytest_netns.isolation.enter import ISOLATION

__all__ = ["as_other"]

HERE = "/proc/thread-self/ns/net"
AGENTS = "/run/vethlib"


@pytest.fixture
def home(request: pytest.FixtureRequest) -> Iterator[ns.Netns]:
    """A new network namespace in which the test runs, with only lo and no named namespace; nothing may stay behind."""
    assert ns.names() == []
    before, fds = os.stat(HERE).st_ino, counted_fds()
    try:
        with ns.Netns.anonymous() as home, home.entered():
            inside = os.stat(HERE).st_ino
            yield home
            assert os.stat(HERE).st_ino == inside, "the test was left in another namespace"
    finally:  # otherwise all later tests of this process would fail, too
        for name in ns.names():
            ns.remove(name)
        if request.config.stash[ISOLATION].namespaces and os.path.isdir(AGENTS):
            shutil.rmtree(AGENTS)
    assert os.stat(HERE).st_ino == before
    if counted_fds() == fds:
        return
    # The test left garbage, or garbage of an earlier test was found meanwhile. And the thread of a closed resolver
    # ends, with its connection, only when a slow engine has answered.
    assert poll(lambda: open_fds() <= fds, 15.0), f"{open_fds() - fds} more file descriptors than before"


@pytest.fixture
def session(home: ns.Netns) -> Iterator[Session]:
    with Session() as session:
        yield session


@pytest.fixture
def vethctl(home: ns.Netns, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Vethctl]:
    """Run a command line in this process."""
    yield runner(capsys, monkeypatch)
    monkeypatch.undo()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write interfaces to a file; return its path."""

    def write(*values: dict[str, Any]) -> str:
        path = tmp_path / "interfaces.json"
        path.write_text(json.dumps(values))
        return str(path)

    return write


@pytest.fixture
def start_agent(home: ns.Netns, tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    """Start agents on the example pair, or on the existing content of the store; those that still run are ended.

    Without `ipv6`, the pair has no IPv6 addresses, which would have to be checked for duplicates first.
    """
    started: list[Agent] = []
    (tmp_path / "store").mkdir()

    def begin(*options: str, wanted: bool = True, ipv6: bool = False, **environment: str) -> Agent:
        if wanted and not list((tmp_path / "store").iterdir()):
            for file in (EXAMPLES / "pair").iterdir():
                shutil.copy(file, tmp_path / "store")
                if not ipv6:
                    text = json.loads(file.read_text())
                    text["ip_addresses"] = [one for one in text["ip_addresses"] if ":" not in one]
                    (tmp_path / "store" / file.name).write_text(json.dumps(text))
        started.append(Agent(tmp_path, *options, **environment))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.end(signal.SIGKILL)
        one._manager.close()


@pytest.fixture
def make_netns(home: ns.Netns) -> Callable[..., None]:
    """Create named namespaces."""

    def make(*names: str) -> None:
        for name in names:
            ns.Netns.create(name).close()

    return make


@pytest.fixture
def blue(make_netns: Callable[..., None]) -> str:
    make_netns("blue")
    return "blue"


@pytest.fixture
def red(make_netns: Callable[..., None]) -> str:
    make_netns("red")
    return "red"


@pytest.fixture
def spawn(home: ns.Netns) -> Iterator[Callable[[str], int]]:
    """Start a process in a namespace, and return its pid."""
    started: list[subprocess.Popen[bytes]] = []

    def start(netns: str) -> int:
        with ns.entered(netns):
            started.append(subprocess.Popen(["sleep", "60"]))
        return started[-1].pid

    yield start
    for one in started:
        one.kill()
        one.wait()


@pytest.fixture
def sleeper(home: ns.Netns) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Start processes in the namespace of the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["sleep", "60"]))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait()


@pytest.fixture
def resolver() -> Iterator[MemoryResolver]:
    resolver = MemoryResolver()
    yield resolver
    resolver.close()


@pytest.fixture
def configurator(session: Session) -> Iterator[Configurator]:
    with Configurator(session) as configurator:
        yield configurator


@pytest.fixture(scope="session")
def warm_pytest() -> Iterator[WarmPytest]:
    with WarmPytest() as warm:
        yield warm


@pytest.fixture
def pytester(pytester: pytest.Pytester, warm_pytest: WarmPytest, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """The pytester of pytest; its runs of pytest in this Python, with no command before it, need not import pytest."""
    monkeypatch.setattr(pytester, "popen", warm_pytest.instead_of(pytester.popen))
    return pytester


@pytest.fixture
def little_patience(home: ns.Netns, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give up at once on file systems that do not answer; at the end, no thread waits for them."""
    # Before Linux 5.12, the kernel does not report whether a path is in memory, so every file takes a thread; and with
    # a single CPU, a thread has to wait for its turn.
    monkeypatch.setattr(answers, "PATIENCE", 0.1 if kernel_is("5.12") and (os.cpu_count() or 1) > 1 else 0.5)
    yield
    assert nobody_waits()


@pytest.fixture
def easily_disturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache follows a namespace apart, or not at all, after a few hundred events."""
    monkeypatch.setattr(noise, "NOISY", 300)
    monkeypatch.setattr(noise, "WINDOW", 60.0)


@pytest.fixture
def others(session: Session, blue: str, red: str) -> dict[str, list[dict[str, Any]]]:
    """Create various links that nobody names, some of them in groups; return the state of the host with only these."""
    session.create(Veth(End("o1", group=7), End("o2", "blue", group=7)))
    session.create(Veth(End("o3", "red", group=1 << 30), End("o4", "blue", group=(1 << 31) - 1)))
    for netns in ("", "blue", "red"):
        ip("link", "add", "name", "br", "group", "7", "type", "bridge", netns=netns)
        ip("link", "add", "name", "vx", "type", "vxlan", "id", "3", "dstport", "4789", netns=netns)
    ip("link", "add", "link", "o1", "name", "mv", "type", "macvlan")
    return host_state()
