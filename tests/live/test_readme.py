"""README's examples do what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.witness import seen
from vethlib import ns
from vethlib.cli import main

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_api_example_runs_and_prints_two_indexes(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = [block for block in BLOCKS if "session.create(" in block and "IfIndexCache" not in block]
    exec(compile(example, "README.md", "exec"), {})
    assert re.fullmatch(r"\d+ \d+\n", capsys.readouterr().out)
    for name in ("ns1", "ns2"):
        ns.remove(name)


def test_the_cache_example_prints_an_index_and_what_happened(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = [block for block in BLOCKS if "IfIndexCache" in block]
    exec(compile(example, "README.md", "exec"), {})
    index, *events = capsys.readouterr().out.splitlines()
    assert index.isdecimal()
    ends = {"ns1 veth1", "ns2 veth2"}
    assert {event.partition(" ")[2] for event in events} == ends
    assert {event for event in events if not event.startswith("changed ")} == {
        f"{kind} {end}" for kind in ("new", "deleted") for end in ends
    }
    assert events[0] == "new ns2 veth2"
    for name in ("ns1", "ns2"):
        ns.remove(name)


def test_the_embedding_example_has_its_pair_configured(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = [block for block in BLOCKS if "Configurator(" in block]
    assert len(example.splitlines()) < 30
    exec(compile(example, "README.md", "exec"), {})
    *lines, index = capsys.readouterr().out.splitlines()
    assert {"veth1 CONFIGURED ", "veth2 CONFIGURED "} <= set(lines)
    assert int(index) == seen("veth2", "blue")["ifindex"]
    ns.remove("blue")


def test_the_apply_example_prints_what_it_shows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    shown = README.split("$ vethctl apply examples/pair\n")[1].split("\n\n")[0]
    assert main(["apply", "examples/pair"]) == 0
    assert capsys.readouterr().out.splitlines() == [line.removeprefix("    ") for line in shown.splitlines()]
    main(["delete", "veth1@ns1"])
    for name in ("ns1", "ns2"):
        ns.remove(name)
