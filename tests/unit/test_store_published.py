"""Statuses are read only if an agent can have written them, in the place where it writes them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.capabilities import dropped
from vethlib.agent import State
from vethlib.agent.config.filecontent import content
from vethlib.agent.status import Status
from vethlib.agent.stores import published
from vethlib.agent.stores.agentfile import AgentFile
from vethlib.agent.stores.agentreport import AgentReport, read_report
from vethlib.agent.stores.published import DirectoryStatuses, Published, as_entry
from vethlib.agent.stores.statuses import StatusFiles

STATUS = Status("veth1", State.RETRYING, "no", 1_700_000_000.25, "netns:ns1", "veth1", "veth2", warning="w")
NO_STATUS: list[dict[str, Any]] = [
    {"name": 7},
    {"name": ""} | {"state": None},
    {"name": "\ud800"},
    {"state": []},
    {"state": {}},
    {"reason": 5},
    {"reason": None},
    {"netns": 7},
    {"netns": None},
    {"host_name": ["x"]},
    {"ifindex": "7"},
    {"ifindex": True},
    {"peer": None},
    {"since": 5},
    {"since": None},
    {"since": "yesterday"},
    {"since": "0001-01-01"},
    {"warning": 5},
    {"config_revision": "a"},
    {"config_revision": True},
    {"config_revision": None},
    {"stored_revision": 1.5},
]


def test_what_an_agent_writes_is_read_whatever_else_is_in_it() -> None:
    entry = STATUS.as_dict() | {"config_revision": 7, "of a later version": [1]}
    assert as_entry(json.dumps(entry).encode()) == entry


@pytest.mark.parametrize("junk", NO_STATUS, ids=json.dumps)
def test_what_no_agent_writes_is_none(junk: dict[str, Any]) -> None:
    assert as_entry(json.dumps(STATUS.as_dict() | junk).encode()) is None


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_what_has_a_number_that_json_cannot_hold_is_none(number: str) -> None:
    text = json.dumps(STATUS.as_dict())
    assert as_entry(text.encode()) is not None
    assert as_entry(f'{text[:-1]}, "more": [{number}]}}'.encode()) is None


def test_what_is_nested_too_deeply_to_be_printed_is_none() -> None:
    text = json.dumps(STATUS.as_dict())[:-1]
    assert as_entry(f'{text}, "x": {"[" * 500}{"]" * 500}}}'.encode()) is None


@pytest.mark.parametrize("name", [*STATUS.as_dict()][:8])
def test_what_lacks_something_is_none(name: str) -> None:
    entry = STATUS.as_dict()
    del entry[name]
    assert as_entry(json.dumps(entry).encode()) is None


def test_a_status_in_a_file_that_is_not_its_own_is_passed_over(tmp_path: Path) -> None:
    odd = Status(".a/b%", State.INVALID, "no", 1_700_000_000.0)
    StatusFiles(tmp_path).publish({one.name: one for one in (STATUS, odd)})
    (tmp_path / "veth2.json").write_text(json.dumps(STATUS.as_dict() | {"name": "veth3"}))
    entries = DirectoryStatuses(str(tmp_path), "nobody").read().entries
    assert entries == {one.name: one.as_dict() for one in (STATUS, odd)}


def test_a_file_that_may_not_be_read_hides_no_status(tmp_path: Path) -> None:
    StatusFiles(tmp_path).publish({STATUS.name: STATUS})
    (tmp_path / "z.json").touch()
    (tmp_path / "z.json").chmod(0)
    with dropped():
        assert DirectoryStatuses(str(tmp_path), "nobody").read().entries == {STATUS.name: STATUS.as_dict()}


@pytest.mark.parametrize("mode", [0, 0o400], ids=["list", "enter"])
def test_a_directory_that_may_not_be_read_is_refused_by_its_path(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "statuses"
    StatusFiles(directory).publish({STATUS.name: STATUS})
    directory.chmod(mode)
    with dropped(), pytest.raises(PermissionError) as caught:
        DirectoryStatuses(str(directory), "nobody").read()
    directory.chmod(0o700)
    assert caught.value.filename == str(directory)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the status files that were read."""
    files: list[str] = []

    def noted(path: str, *args: Any, **fields: Any) -> Any:
        if path.endswith(".json"):
            files.append(path.rpartition("/")[2])
        return content(path, *args, **fields)

    monkeypatch.setattr(published, "content", noted)
    return files


def statuses(number: int, state: State = State.PENDING) -> dict[str, Status | None]:
    return {f"v{each}": Status(f"v{each}", state, "", 1_700_000_000.0) for each in range(number)}


def test_only_files_that_have_changed_are_read_while_the_statuses_are_watched(tmp_path: Path, read: list[str]) -> None:
    files = StatusFiles(tmp_path)
    files.publish(statuses(20))
    watching = DirectoryStatuses(str(tmp_path), "nobody").watch(0.05)

    def following() -> dict[str, Any]:
        shown = next(watching)
        assert isinstance(shown, Published)
        return {name: entry["state"] for name, entry in shown.entries.items()}

    assert following() == dict.fromkeys(statuses(20), "PENDING")
    read.clear()
    assert following() == dict.fromkeys(statuses(20), "PENDING")  # because of the interval
    files.publish(statuses(2, State.CONFIGURED))
    shown = following()
    while "PENDING" in (shown["v0"], shown["v1"]):
        shown = following()
    assert shown == dict.fromkeys(statuses(20), "PENDING") | {"v0": "CONFIGURED", "v1": "CONFIGURED"}
    files.publish({"v0": None})
    while "v0" in (shown := following()):
        pass
    assert len(shown) == 19
    assert set(read) <= {"v0.json", "v1.json"}
    watching.close()


@pytest.mark.parametrize("how", ["removed", "moved away"])
def test_statuses_of_a_directory_that_is_made_again_are_all_read(tmp_path: Path, how: str) -> None:
    directory = tmp_path / "status"
    StatusFiles(directory).publish(statuses(3))
    watching = DirectoryStatuses(str(directory), "nobody").watch(0.5)
    next(watching)
    if how == "removed":
        shutil.rmtree(directory)
    else:
        directory.rename(tmp_path / "away")
    StatusFiles(directory).publish(statuses(5))
    while len(getattr(next(watching), "entries", ())) != 5:
        pass
    watching.close()


def test_a_file_that_may_be_read_from_now_on_is_read(tmp_path: Path) -> None:
    StatusFiles(tmp_path).publish(statuses(2))
    (tmp_path / "v1.json").chmod(0)
    with dropped():
        watching = DirectoryStatuses(str(tmp_path), "nobody").watch(60.0)
        assert set(getattr(next(watching), "entries", ())) == {"v0"}
    (tmp_path / "v1.json").chmod(0o644)
    while "v1" not in getattr(next(watching), "entries", ()):
        pass
    watching.close()


def test_a_directory_that_may_not_be_read_any_more_is_refused_while_it_is_watched(tmp_path: Path) -> None:
    directory = tmp_path / "statuses"
    StatusFiles(directory).publish(statuses(2))
    with dropped():
        watching = DirectoryStatuses(str(directory), "nobody").watch(60.0)
        assert len(getattr(next(watching), "entries", ())) == 2
    directory.chmod(0)
    with dropped(), pytest.raises(PermissionError):
        while True:
            next(watching)
    directory.chmod(0o700)


@pytest.mark.parametrize("mode", [0, 0o400], ids=["list", "enter"])
def test_no_status_is_taken_for_removed_because_its_directory_may_not_be_read(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "statuses"
    StatusFiles(directory).publish(statuses(2))
    reader = DirectoryStatuses(str(directory), "nobody")
    assert len(reader.read().entries) == 2
    directory.chmod(mode)
    with dropped(), pytest.raises(PermissionError) as caught:
        reader.read({"v0.json"})
    directory.chmod(0o700)
    assert caught.value.filename == str(directory)
    assert len(reader.read({"v0.json"}).entries) == 2


def test_a_directory_that_is_removed_while_it_is_read_has_no_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "statuses"
    StatusFiles(directory).publish(statuses(2))
    AgentFile(directory, "dir:/there", (1, 2), "nobody").published()

    def read_at_last(path: str) -> AgentReport | None:
        report = read_report(path)
        shutil.rmtree(path)
        return report

    monkeypatch.setattr(published, "read_report", read_at_last)
    shown = DirectoryStatuses(str(directory), "nobody").read()
    assert (shown.agent, shown.is_elsewhere, dict(shown.current)) == (None, False, {})
