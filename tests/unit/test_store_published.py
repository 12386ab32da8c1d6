"""What is read of a status: only what an agent can have written, at the place where it writes that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.capabilities import dropped
from vethlib.agent import State
from vethlib.agent.status import Status
from vethlib.agent.stores.published import DirectoryStatuses, as_entry
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
