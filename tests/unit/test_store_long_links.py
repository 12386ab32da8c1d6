"""Symbolic links in a store that lead through many names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.live.applying import value
from tests.stores import nothing, write
from vethlib._trusted import MOST_NAMES
from vethlib.agent.stores.files.directory import DirectoryStore
from vethlib.agent.stores.protocol import Snapshot


def count(patch: pytest.MonkeyPatch, name: str) -> list[object]:
    """The paths that are given to a function of os from now on."""
    paths: list[object] = []
    function = getattr(os, name)

    def counted(path: object, *args: Any, **how: Any) -> Any:
        paths.append(path)
        return function(path, *args, **how)

    patch.setattr(os, name, counted)
    return paths


def test_a_link_that_leads_through_too_many_names_is_refused_before_they_are_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_path, elsewhere = tmp_path / "store", tmp_path / "elsewhere"
    store_path.mkdir()
    (elsewhere / "d").mkdir(parents=True)
    write(store_path / "honest.json", value("honest", "peer"))
    write(elsewhere / "real.json", value("x", "peer"))
    write(elsewhere / "near.json", value("near", "peer"))
    (store_path / "near.json").symlink_to(f"../elsewhere/{'d/../' * 50}near.json")
    for number in range(30):
        target = "real.json" if number == 29 else f"link{number + 1}"
        (elsewhere / f"link{number}").symlink_to("d/../" * 500 + target)
    (store_path / "x.json").symlink_to("../elsewhere/link0")
    store = DirectoryStore(store_path)
    try:
        opened, read = count(monkeypatch, "open"), count(monkeypatch, "readlink")
        (found,) = store.read()
        assert isinstance(found, Snapshot)
        assert found.values["honest"].interface is not None
        assert found.values["near"].interface is not None
        assert str(MOST_NAMES) in str(found.values["x"].problems[0])
        assert len(opened) + len(read) <= 8 * MOST_NAMES
        nothing(store)
    finally:
        store.close()
