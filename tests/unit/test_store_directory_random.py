"""A directory of files, followed while anything is done to it."""

from __future__ import annotations

import json
import os
import random
from contextlib import closing
from pathlib import Path

import pytest

from tests.live.applying import value
from tests.stores import PROMPT, is_readable, write
from vethlib.agent import Parsed, load
from vethlib.agent.stores.files.directory import DirectoryStore
from vethlib.agent.stores.protocol import Change, Snapshot, StoreEvent


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_done_to_the_files_what_is_told_leads_to_what_load_finds(tmp_path: Path, seed: int) -> None:
    choose = random.Random(seed)
    path = tmp_path / "conf"
    path.mkdir()
    told: dict[str, Parsed] = {}
    with closing(DirectoryStore(path)) as store:
        for _ in range(300):
            _disturb(path, choose)
            if choose.random() < 0.3:
                _take(told, store.read())
        while found := _until_quiet(store):
            _take(told, found)
    loaded = [one for one in load([path]).parsed if one.name]
    assert {key: one.interface for key, one in told.items() if one.interface} == {
        one.name: one.interface for one in loaded if one.interface
    }
    assert {key for key, one in told.items() if not one.interface} >= {one.name for one in loaded if not one.interface}


def _disturb(path: Path, choose: random.Random) -> None:
    """Do one thing that users and programs do to a directory, or to a file in it."""
    file, other = (path / f"{choose.choice('pqrst')}.{choose.choice(['json', 'json', 'json', 'txt'])}" for _ in "12")
    ends = [
        value(choose.choice("abcdefgh"), "x", mtu=choose.randrange(1300, 1310)) for _ in range(choose.randrange(1, 4))
    ]
    away = path.with_name("away")
    match choose.randrange(9):
        case 0 | 1:
            write(file, *ends)
        case 2 | 3:
            file.write_text(json.dumps(ends))
        case 4:
            file.write_text(choose.choice(["", "{", '[{"nam": "a"}]', '[{"name": "a", "mtu": 5}]']))
        case 5:
            file.unlink(missing_ok=True)
        case 6 if file.exists():
            file.rename(other)
        case 7 if file.exists() and not other.exists():
            os.link(file, other)
        case 8 if choose.random() < 0.3:
            path.rename(away)
            if choose.random() < 0.5:
                away.rename(path)
            else:
                path.mkdir()
                for name in os.listdir(away):
                    (away / name).rename(path / name)
                away.rmdir()


def _until_quiet(store: DirectoryStore) -> list[StoreEvent]:
    """The next news; [] when there is nothing more to come."""
    while True:
        due = store.due()
        if not is_readable(store, PROMPT if due is None else due) and due is None:
            return []
        if found := store.read():
            return found


def _take(told: dict[str, Parsed], found: list[StoreEvent]) -> None:
    for one in found:
        if isinstance(one, Snapshot):
            told.clear()
            told.update(one.values)
        elif isinstance(one, Change) and one.value is None:
            del told[one.name]
        elif isinstance(one, Change) and one.value is not None:
            told[one.name] = one.value
