"""The page on capabilities: those of a call suffice, and without one of them nothing is changed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.confined import confined
from tests.live.applying import value
from vethlib import End, Session, Veth, ns

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs/reference/capabilities.md"
UNIT = Path(__file__).parents[2] / "packaging/systemd/vethlib@.service"


def rows() -> Iterator[tuple[str, str, frozenset[str]]]:
    """Each call of the table, the remark on it, and its capabilities as setpriv spells them."""
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 2:
            capabilities = frozenset(name.removeprefix("CAP_").lower() for name in re.findall(r"CAP_\w+", cells[1]))
            remark = re.sub(r"`[^`]*`,?", "", cells[0]).strip()
            codes = re.findall(r"`([^`]*)`", cells[0])
            if codes[0].startswith("vethctl"):
                codes, remark = codes[:1], cells[0].partition("`" + codes[0] + "`")[2].strip()
            yield from ((code, remark, capabilities) for code in codes)


ROWS = list(rows())


class World:
    """The links and namespaces that the page describes, created again after a call has changed them."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._process: subprocess.Popen[bytes] | None = None
        self.make()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def make(self) -> None:
        self.clear()
        self._session.create_many([Veth(End("c"), End("d"))])
        for name in ("blue", "red"):
            ns.Netns.create(name).close()
        self._session.create(Veth(End("a"), End("b", "blue")))
        if self._process is None:
            with ns.Netns.anonymous() as elsewhere, elsewhere.entered():
                self._process = subprocess.Popen(["sleep", "600"])
        self.seen = self.look()

    def clear(self) -> None:
        for name in ns.names():
            self._session.delete_many([(link.name, name) for link in self._session.links(name) if link.kind == "veth"])
            ns.remove(name)
        self._session.delete_many([(link.name, "") for link in self._session.links() if link.kind == "veth"])

    def look(self) -> list[Any]:
        refs = ["", *(f"netns:{name}" for name in ns.names()), f"pid:{self.pid}"]
        links = [
            (ref, link.index, link.name, link.mtu, link.up, link.alias, sorted(map(str, link.addresses)))
            for ref in refs
            for link in self._session.links(ref)
        ]
        # Link-local addresses come when the kernel is ready.
        plain = [(*one[:-1], [address for address in one[-1] if not address.startswith("fe80")]) for one in links]
        return [plain, sorted({*os.listdir("/run")} - {"vethlib"})]  # where what was built is recorded

    def close(self) -> None:
        self.clear()
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def world(session: Session) -> Iterator[World]:
    world = World(session)
    yield world
    world.close()


def interfaces(remark: str, pid: int) -> list[dict[str, Any]]:
    """The interfaces that the remark of a row names."""
    wanted = [value("x", "y"), value("y", "x", "blue" if "blue" in remark else "")]
    if "pid:" in remark:
        wanted += [value("v", "w", "blue"), value("w", "v") | {"namespace": {"pid": pid}}]
    return wanted


def test_each_call_needs_what_the_page_says_and_nothing_else(world: World) -> None:
    switch = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
    for code, remark, capabilities in ROWS:
        code = re.sub(r"\b42\b", str(world.pid), code)
        wanted = interfaces(remark, world.pid)
        switch.write_text("1" if "IPv6 disabled" in remark else "0")
        for missing in capabilities:
            row = f"{code} {remark} without {missing}"
            assert missing in confined(capabilities - {missing}, code, wanted).split(), row
            if code == "vethctl agent":
                world.make()  # it does what it can
            assert world.look() == world.seen, row
        assert confined(capabilities, code, wanted) == "", f"{code} {remark}"
        if world.look() != world.seen:
            world.make()


def test_a_program_at_home_needs_one_capability(world: World) -> None:
    vethctl = ["setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all", sys.executable, "-m", "vethlib"]
    for words in (["create", "x", "y", "--wait", "20"], ["delete", "x"]):
        done = subprocess.run([*vethctl, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    refused = subprocess.run([*vethctl, "create", "x", "y@blue"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "CAP_SYS_ADMIN" in refused.stderr
    assert world.look() == world.seen


def test_the_page_has_every_kind_of_call_and_the_unit_what_the_whole_agent_needs() -> None:
    assert len(ROWS) > 40
    needed = set().union(*(capabilities for code, _, capabilities in ROWS if code == "vethctl agent"))
    granted = re.search(r"^CapabilityBoundingSet=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert granted is not None
    assert needed == {name.removeprefix("CAP_").lower() for name in granted[1].split()}
