"""The file in which an agent describes itself beside its statuses, and how readers treat arbitrary content there."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.witness import poll
from vethlib.agent.stores import agentfile
from vethlib.agent.stores.agentfile import AgentFile
from vethlib.agent.stores.agentreport import read_report


def test_what_is_said_is_read_and_an_outage_begins_once(tmp_path: Path) -> None:
    file = AgentFile(tmp_path / "status", "dir:/etc/vethlib")
    file.write()
    said = read_report(str(tmp_path / "status"))
    assert said is not None
    assert (said.store, said.ready, said.outage) == ("dir:/etc/vethlib", False, "")
    file.published()
    file.write("it is away")
    first = read_report(str(tmp_path / "status"))
    file.write("it is away otherwise", "unreachable")
    second = read_report(str(tmp_path / "status"))
    assert first is not None
    assert second is not None
    assert first.ready
    assert (first.outage_code, second.outage_code) == ("", "unreachable")
    assert second.outage == "it is away otherwise"
    assert second.outage_since == first.outage_since > 0
    assert os.listdir(tmp_path / "status") == [".agent"]
    file.ended()
    last = read_report(str(tmp_path / "status"))
    assert last is not None
    assert (last.store, last.ready, last.outage, last.outage_since) == (said.store, False, "", 0.0)


def test_the_home_of_the_agent_is_read_if_it_was_reported(tmp_path: Path) -> None:
    AgentFile(tmp_path, "memory:", (4, 4026531840), "here").write()
    report = read_report(str(tmp_path))
    assert report is not None
    assert (report.home, report.label) == ((4, 4026531840), "here")
    assert report.is_of("here")
    assert report.is_of("here", (4, 4026531840))
    assert not report.is_of("here", (4, 1))
    assert not report.is_of("there")
    for home in (None, 5, [], [1], [1, "2"], [True, 2], [1.0, 2]):
        value = json.loads((tmp_path / ".agent").read_text()) | {"home": home}
        (tmp_path / ".agent").write_text(json.dumps(value))
        report = read_report(str(tmp_path))
        assert report is not None
        assert report.home is None


def test_a_file_that_somebody_removes_comes_back_with_the_next_statuses(tmp_path: Path) -> None:
    file = AgentFile(tmp_path, "memory:")
    file.write()
    file.published()
    (tmp_path / ".agent").unlink()
    file.published()
    said = read_report(str(tmp_path))
    assert said is not None
    assert said.ready


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        json.dumps({"store": 1, "ready": True, "outage": "", "outage_since": 0}),
        json.dumps({"store": "", "ready": 1, "outage": "", "outage_since": 0}),
        json.dumps({"store": "", "ready": True, "outage": "", "outage_since": "x"}),
        json.dumps({"store": "", "ready": True, "outage": "", "outage_since": 1e300}),
        json.dumps({"store": "", "ready": True}),
        json.dumps({"store": "", "ready": True, "outage": "", "outage_since": 0, "outage_code": 1}),
        json.dumps({"store": "", "ready": True, "outage": "", "outage_since": 0, "label": None}),
        json.dumps({"store": "", "ready": True, "outage": "", "outage_since": 0, "unwritten": None}),
        json.dumps({"store": "", "ready": True, "outage": "", "outage_since": 0, "unwritten_since": 1e300}),
    ],
)
def test_what_others_write_there_is_nothing_said(tmp_path: Path, content: str) -> None:
    (tmp_path / ".agent").write_text(content)
    assert read_report(str(tmp_path)) is None


def test_that_it_cannot_be_written_is_told_once_and_harms_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "status").write_text("a file")
    file = AgentFile(tmp_path / "status", "memory:")
    file.write()
    file.write("down")
    (message,) = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert message.startswith("`vethctl status` cannot show whether the store can be read, because ")
    file.ended()


def test_the_time_since_when_statuses_cannot_be_written_is_that_of_the_first_reason(tmp_path: Path) -> None:
    file = AgentFile(tmp_path, "memory:")
    file.unwritten("full")
    first = read_report(str(tmp_path))
    file.unwritten("read-only")
    second = read_report(str(tmp_path))
    file.unwritten("")
    last = read_report(str(tmp_path))
    assert first is not None
    assert second is not None
    assert last is not None
    assert (first.unwritten, second.unwritten, last.unwritten) == ("full", "read-only", "")
    assert first.unwritten_since == second.unwritten_since > last.unwritten_since == 0.0


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let no other file be written any more."""

    def fill() -> None:
        def write_whole(path: str, *_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

        monkeypatch.setattr(agentfile, "write_whole", write_whole)

    return fill


def test_where_no_other_file_can_be_written_the_report_is_overwritten(
    tmp_path: Path, full: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    file = AgentFile(tmp_path, "memory:", label="here")
    file.write("a reason that is much longer than the one which follows it")
    full()
    for reason in ("No space left on device", ""):
        file.write()
        file.unwritten(reason)
        report = read_report(str(tmp_path))
        assert report is not None
        assert (report.unwritten, report.outage, report.label) == (reason, "", "here")
    assert (file.due(), caplog.records) == (None, [])


@pytest.mark.parametrize("how", ["link", "symlink"])
def test_a_file_that_somebody_has_put_in_the_place_of_the_report_is_not_overwritten(
    tmp_path: Path, full: Callable[[], None], how: str
) -> None:
    other = tmp_path / "other"
    other.write_text("x" * 1000)
    file = AgentFile(tmp_path / "status", "memory:")
    file.write()
    (tmp_path / "status/.agent").unlink()
    (os.link if how == "link" else os.symlink)(other, tmp_path / "status/.agent")
    full()
    file.unwritten("No space left on device")
    assert file.due() is not None
    assert other.read_text() == "x" * 1000


def test_a_report_for_which_there_is_no_room_leaves_the_former(tmp_path: Path, full: Callable[[], None]) -> None:
    file = AgentFile(tmp_path, "memory:")
    file.write()
    full()
    file.write("x" * 100_000)
    assert file.due() is not None
    report = read_report(str(tmp_path))
    assert report is not None
    assert report.outage == ""


def test_an_outage_that_is_over_is_not_told_for_ever_where_that_could_not_be_written(tmp_path: Path) -> None:
    directory = tmp_path / "status"
    file = AgentFile(directory, "memory:")
    file.write("down")
    file.published()
    directory.rename(tmp_path / "away")
    directory.write_text("a file")
    file.write()
    assert file.due() is not None
    directory.unlink()
    (tmp_path / "away").rename(directory)

    def is_said() -> bool:
        file.try_again()
        return file.due() is None

    assert poll(is_said)
    said = read_report(str(directory))
    assert said is not None
    assert said.outage == ""
