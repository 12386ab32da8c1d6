"""What an agent says of itself beside its statuses, and what a reader makes of whatever stands there."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from tests.witness import poll
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
