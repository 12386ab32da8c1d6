"""The checks of doctor: Python packages, its own environment variables, and a store."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from tests.live.applying import value
from vethlib.agent.process.rundir import status_directory
from vethlib.agent.stores.agentreport import AgentReport
from vethlib.cli.host import doctor_checks
from vethlib.cli.host.doctor_checks import Finding


def by_name(findings: object) -> dict[str, Finding]:
    return {one.what: one for one in findings}  # type: ignore[attr-defined]


def test_a_missing_extra_comes_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    there = by_name(doctor_checks.packages())
    assert all(one.ok for one in there.values())
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    missing = by_name(doctor_checks.packages())
    assert {one.problem for one in missing.values()} == {"not-installed"}
    assert {one.problem for one in there.values()} == {""}
    assert {name: (one.cure, one.needed) for name, one in missing.items()} == {
        "protobuf": ("pip install 'vethlib'", True),
        "inotify_simple": ("pip install 'vethlib'", True),
        "pyroute2": ("pip install 'vethlib'", False),
        "grpcio": ("pip install 'vethlib[etcd]'", False),
        "docker": ("pip install 'vethlib[docker]'", False),
        "prometheus-client": ("pip install 'vethlib[metrics]'", False),
    }


def test_a_variable_that_means_nothing_or_is_refused_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"SOTRE": "dir:/x", "LABEL": "a", "LIMIT": "queues=x", "DEBUG": "nl,more", "XYZ": "1"}
    for name, text in given.items():
        monkeypatch.setenv(f"VETHLIB_{name}", text)
    found = by_name(doctor_checks.variables())
    assert {name.removeprefix("VETHLIB_") for name, one in found.items() if not one.ok} == given.keys() - {"LABEL"}
    assert found["VETHLIB_SOTRE"].cure == "did you mean VETHLIB_STORE?"
    assert {name.removeprefix("VETHLIB_"): one.problem for name, one in found.items()} == {
        "SOTRE": "unknown-variable",
        "LABEL": "",
        "LIMIT": "invalid-value",
        "DEBUG": "invalid-value",
        "XYZ": "unknown-variable",
    }
    assert found["VETHLIB_XYZ"].cure == "unset VETHLIB_XYZ: see vethctl COMMAND --help"


@pytest.mark.parametrize(
    "wrong",
    [
        {"LOOPBACK": "yes"},
        {"LOOPBACK": "yes", "IPV6": "maybe", "HOOK_TIMEOUT": "soon", "MISSING_NETNS": "x"},
        {"JSON": "please", "COLOR": "red", "INTERVAL": "0", "SORT": "size", "PRUNE": "2"},
        {"LIMIT": "queues=x", "TIMEOUT": "never"},
    ],
    ids=len,
)
def test_each_invalid_variable_is_named_and_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str]
) -> None:
    right = {"DOCKER": "off", "METRICS": ":1", "STORE": "dir:/x", "STATUS_DIR": "/x", "HUMAN": "1", "STRICT": "0"}
    for name, text in {**right, **wrong}.items():
        monkeypatch.setenv(f"VETHLIB_{name}", text)
    found = {name.removeprefix("VETHLIB_"): one for name, one in by_name(doctor_checks.variables()).items()}
    assert {name: one.problem for name, one in found.items()} == {
        **dict.fromkeys(right, ""),
        **dict.fromkeys(wrong, "invalid-value"),
    }


def test_variables_of_hooks_and_of_flags_without_one_are_not_called_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"HOOK": "exec:/bin/true", "HOOK_TIMEOUT": "5", "LIMIT": "queues=8", "STATUS_DIR": "/x"}.items():
        monkeypatch.setenv(f"VETHLIB_{name}", text)
    for name in ("NAME", "PEER", "STATE", "ADDR", "MTU", "UP", "TRY", "PREFIX"):
        monkeypatch.setenv(f"VETHLIB_{name}", "1")
    found = by_name(doctor_checks.variables())
    assert {name.removeprefix("VETHLIB_") for name, one in found.items() if one.ok} == {
        "HOOK",
        "HOOK_TIMEOUT",
        "LIMIT",
        "STATUS_DIR",
    }


def test_the_store_that_commands_would_take_is_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VETHLIB_STORE", raising=False)
    assert list(doctor_checks.store()) == []
    monkeypatch.setenv("VETHLIB_STORE", f"dir:{tmp_path}")
    monkeypatch.delenv("MICROSERVICE_LABEL", raising=False)
    (tmp_path / "a.json").write_text(json.dumps(value("a", "b")))
    (good,) = doctor_checks.store()
    assert (good.ok, good.problem) == (True, "")
    (tmp_path / "b.json").write_text(json.dumps(value("b", "a", mtu=5)))
    (bad,) = doctor_checks.store()
    assert (bad.ok, bad.needed) == (False, False)
    assert bad.problem == "invalid-values"
    monkeypatch.setenv("VETHLIB_STORE", f"dir:{tmp_path}/none")
    (away,) = doctor_checks.store()
    assert away.problem == "missing"


SENTENCES = {
    "a package": "grpcio is not installed: it connects to etcd: --store etcd://",
    "a variable that is not known": "has no effect: it is not the default of a flag",
    "a value of VETHLIB_DEBUG": "unknown: more",
    "a store": "dir:HERE has 2 interfaces for the label vpp1, of which 1 value cannot be used: b",
}


def test_the_findings_are_told_in_these_sentences(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, text in {"XYZ": "1", "DEBUG": "more", "STORE": f"dir:{tmp_path}"}.items():
        monkeypatch.setenv(f"VETHLIB_{name}", text)
    monkeypatch.delenv("MICROSERVICE_LABEL", raising=False)
    (tmp_path / "a.json").write_text(json.dumps(value("a", "b")))
    (tmp_path / "b.json").write_text(json.dumps(value("b", "a", mtu=5)))
    variables, (store,) = by_name(doctor_checks.variables()), doctor_checks.store()
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    assert {
        "a package": by_name(doctor_checks.packages())["grpcio"].detail,
        "a variable that is not known": variables["VETHLIB_XYZ"].detail,
        "a value of VETHLIB_DEBUG": variables["VETHLIB_DEBUG"].detail,
        "a store": store.detail.replace(str(tmp_path), "HERE"),
    } == SENTENCES


def test_an_agent_that_cannot_write_its_statuses_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    report = AgentReport("dir:/etc/vethlib", unwritten="No space left on device", unwritten_since=1.0)
    monkeypatch.setattr(doctor_checks, "agents_here", lambda: [("one", 42, report)])
    monkeypatch.setattr(doctor_checks, "holders", list)
    store, statuses = doctor_checks.agents()
    assert store.ok
    assert (statuses.ok, statuses.needed, statuses.code) == (False, False, "statuses-unwritten")
    assert statuses.detail.endswith("No space left on device")
    assert statuses.cure == f"make {status_directory('one')} writable again"
