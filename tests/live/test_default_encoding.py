"""Nothing depends on the encoding of the locale: Python can make an error of that (PEP 597), and of names not in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.agent_process import LABEL, PATIENCE, VETHCTL, Agent, entry_of
from tests.live.applying import value
from tests.reasons import of_entry
from tests.stores import write
from tests.witness import ip, names, poll, seen
from vethlib import Netns

ROOT = Path(__file__).parents[2]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
STRICT = [sys.executable, "-X", "warn_default_encoding", "-W", "error::EncodingWarning"]

TEST = """
def test_one(topology, veth):
    veth.a.ping(veth.b)
    net = topology("a -- r -- b")
    net["a"].ping(net["r"])
    net["a"].run(["true"])
"""


@pytest.mark.parametrize(
    "command",
    ["doctor", "show --all", "completion bash", "completion zsh", "netns list", "top --once", "describe a", "demo"],
)
def test_no_command_reads_or_writes_in_it(home: Netns, command: str) -> None:
    done = subprocess.run([*STRICT, "-m", "vethlib", *command.split()], capture_output=True, text=True, cwd=ROOT)
    assert "EncodingWarning" not in done.stderr
    assert "Traceback" not in done.stderr


def test_the_plugin_does_not_either(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (tmp_path / "test_it.py").write_text(TEST)
    variables = os.environ | {"PYTHONWARNDEFAULTENCODING": "1"}
    run = [*STRICT, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:cov", "-p", "no:asyncio"]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, env=variables)
    assert done.returncode == 0, done.stdout + done.stderr


# --- names that the locale lacks

CREATE = """
import sys
from vethlib import End, NewAddress, Session, Veth, interface_index
assert sys.getfilesystemencoding() == "ascii"
with Session() as session:
    address = NewAddress("10.0.0.1/24", label="é:ж")
    end = End("é", addresses=[address], alias="ü", altnames=["ö" * 10], ipv6=False, offload=False)
    a, b = session.create(Veth(end, End("ж")))
    assert (a.name, a.alias, a.altnames, b.name) == ("é", "ü", ("ö" * 10,), "ж"), (a, b)
    assert [one.label for one in session.lookup("é").ifaddrs] == ["é:ж"]
    assert {link.name for link in session.links()} == {"lo", "é", "ж"}
    assert interface_index("é") == interface_index("ö" * 10) == session.index("é") == a.index
    assert session.details("é")
    assert session.ipv6_settings("é")
"""
CHANGE = """
from vethlib import Session
with Session() as session:
    session.set("é", new_name="ш", alias="я", ipv6=True)
    session.set_many([("ш", "")], mtu=1400)
    session.move("ж", to="blue", name="щ")
    assert session.lookup("щ", "blue").name == "щ"
"""
DELETE = """
from vethlib import Session
with Session() as session:
    session.delete("ш")
"""


def test_a_link_has_the_same_name_in_every_locale(home: Netns, blue: str, tmp_path: Path) -> None:
    def run(text: str) -> None:
        program = tmp_path / "program.py"
        program.write_text(text, encoding="utf-8")
        environment = os.environ | ASCII | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, program], capture_output=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr

    run(CREATE)
    link = seen("é")
    assert (link["ifalias"], link["altnames"]) == ("ü", ["ö" * 10])
    assert [one["label"] for one in link["addr_info"]] == ["é:ж"]
    assert names() == {"é", "ж"}
    run(CHANGE)
    assert (seen("ш")["ifalias"], seen("ш")["mtu"]) == ("я", 1400)
    assert (names(), names(blue)) == ({"ш"}, {"щ"})
    run(DELETE)
    assert names() == names(blue) == set()


@pytest.mark.slow
def test_an_agent_keeps_the_same_pairs_in_every_locale(start_agent: Callable[..., Agent], tmp_path: Path) -> None:
    """One of a locale without a name of its configuration ended as soon as it was started."""

    def agent(**environment: str) -> Agent:
        started = start_agent("--hook", f"exec:{hook}", **environment)
        assert started.wait_until("READY")["STATUS"] == "6 CONFIGURED"
        return started

    def vethctl(*argv: str, given: str = "") -> bytes:
        command = [*VETHCTL, *argv, "--label", LABEL]
        done = subprocess.run(
            command, input=given.encode(), capture_output=True, env=os.environ | ASCII, cwd=ROOT, timeout=PATIENCE
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    pairs = [("p", "q", "p"), ("é", "ü", "é"), ("ж", "ш", "zz")]
    hook, told, store = tmp_path / "hook", tmp_path / "told", tmp_path / "store"
    hook.write_text(f'#!/bin/sh\necho "$VETHLIB_NAME" >>{told}\n')
    hook.chmod(0o755)
    ip("netns", "add", "n1")
    for a, b, link in pairs:
        write(store / f"{a}.json", value(a, b, "n1", host_if_name=link), value(b, a))
    first = agent(**ASCII)
    assert (names("n1"), names()) == ({"p", "é", "zz"}, {"q", "ü", "ш"})
    before = {name: seen(name, "n1")["ifindex"] for name in names("n1")}
    assert {file.name for file in first.status.glob("*.json")} == {f"{name}.json" for name in "pqéüжш"}
    assert poll(lambda: told.exists() and set(told.read_text(encoding="utf-8").split()) == set("pqéüжш"))
    shown = json.loads(vethctl("status", "--json", "--status-dir", str(first.status)))
    assert {one["name"]: one["state"] for one in shown} == dict.fromkeys("pqéüжш", "CONFIGURED")
    first.end()
    second = agent()
    assert {name: seen(name, "n1")["ifindex"] for name in names("n1")} == before
    assert entry_of(second, "ж")["ifindex"] == before["zz"]
    second.end()
    third = agent(**ASCII)
    assert {name: seen(name, "n1")["ifindex"] for name in names("n1")} == before
    assert names() == {"q", "ü", "ш"}
    assert third.log.count("created") == 6  # by the first one
    vethctl("put", "-", "--store", f"dir:{store}", given=json.dumps(value("щ", "ъ")))
    assert (store / "щ.json").exists()
    assert poll(lambda: entry_of(third, "щ")["state"] == "PENDING")


@pytest.mark.slow
def test_a_namespace_whose_path_the_locale_lacks_is_invalid_and_nothing_else_is(
    start_agent: Callable[..., Agent], tmp_path: Path
) -> None:
    """Such an agent ended as soon as it was started."""
    store = tmp_path / "store"
    write(store / "a.json", value("p", "q", "n1"), value("q", "p"))
    file = value("t", "u") | {"namespace": {"type": 3, "filepath": "/run/ж"}}
    for name, one in {"r": value("r", "s", "ж"), "t": file}.items():
        write(store / f"{name}.json", one)
    ip("netns", "add", "n1")
    agent = start_agent(**ASCII)
    assert agent.wait_until("READY")["STATUS"] == "2 CONFIGURED, 2 INVALID"
    assert (names("n1"), names()) == ({"p"}, {"q"})
    for name, field in ("r", "namespace.name"), ("t", "namespace.filepath"):
        entry = entry_of(agent, name)
        assert of_entry(entry) == f"INVALID: invalid-value({field})"
        assert "(ascii)" in entry["reason"]
