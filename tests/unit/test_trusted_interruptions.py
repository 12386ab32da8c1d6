"""An interruption while a path is walked leaves no descriptor open."""

from __future__ import annotations

import os
from pathlib import Path
from types import CodeType

import pytest

from tests.interrupts import boundaries, distinct, interrupted
from tests.witness import open_fds
from vethlib import _trusted


@pytest.mark.parametrize("path", ["whole/file", "to_file"])
def test_locating_a_file_that_is_interrupted_at_any_bytecode_leaves_nothing_open(tmp_path: Path, path: str) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").touch()
    (tmp_path / "to_a").symlink_to("a")
    (tmp_path / "whole").symlink_to(tmp_path / "a/b")
    (tmp_path / "to_file").symlink_to("to_a/b/file")

    directory = os.open(tmp_path, os.O_PATH)

    def locate() -> None:
        _trusted.locate(path, directory)

    def belongs(code: CodeType) -> bool:
        return code.co_filename == _trusted.__file__

    locate()
    before = open_fds()
    for boundary in distinct(boundaries(locate, belongs)):
        assert interrupted(locate, boundary), boundary
        assert len(os.listdir("/proc/self/fd")) == before or open_fds() == before, boundary
    os.close(directory)
