"""A store on a file system that other machines also change: without events, because inotify reports none of theirs."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.applying import value
from tests.stores import changed, nothing, snapshot, write
from tests.witness import poll
from vethlib.agent.config.filecontent import Content, content
from vethlib.agent.stores.files import tracking
from vethlib.agent.stores.files.directory import DirectoryStore
from vethlib.agent.stores.protocol import Change, Snapshot
from vethlib.follow import remote
from vethlib.follow.directories import Seen, Watch

ELSEWHERE = "elsewhere"


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """The types of file systems by device; without an entry, that of the directory is nfs4."""
    kinds: dict[int, str] = {}
    monkeypatch.setattr(tracking, "remote_kind", lambda device: kinds.get(device, "nfs4"))
    monkeypatch.setattr(remote, "LOOK", 0.1)
    return kinds


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Suppress events, as if everything were done on another machine."""

    def seen(watch: Watch) -> Seen:
        watch._epoll.poll(0)
        watch._inotify.read(timeout=0)
        return Seen()

    monkeypatch.setattr(Watch, "seen", seen)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    (tmp_path / ELSEWHERE).mkdir()
    write(tmp_path / ELSEWHERE / "linked", value("linked", "peer"))
    (path / "linked.json").symlink_to(f"../{ELSEWHERE}/linked")
    for name in ("a", "b"):
        write(path / f"{name}.json", value(name, "peer"))
    return path


@pytest.fixture
def store(path: Path, kinds: dict[int, str], blind: None) -> Iterator[DirectoryStore]:
    store = DirectoryStore(path)
    assert set(snapshot(store)) == {"a", "b", "linked"}
    yield store
    store.close()


def replace(path: Path) -> None:
    write(path / "a.json", value("a", "peer", mtu=1400))


def rewrite(path: Path) -> None:
    """In place, and with as many bytes as before."""
    text = (path / "a.json").read_text()
    (path / "a.json").write_text(text.replace('"peer"', '"reep"'))


def add(path: Path) -> None:
    write(path / "c.json", value("c", "peer"))


def delete(path: Path) -> None:
    (path / "b.json").unlink()


def change_target(path: Path) -> None:
    write(path.parent / ELSEWHERE / "linked", value("linked", "peer", mtu=1400))


STEPS = [(replace, "a"), (rewrite, "a"), (add, "c"), (delete, "b"), (change_target, "linked")]


@pytest.mark.parametrize(("step", "name"), STEPS)
def test_what_another_machine_changes_is_read(
    store: DirectoryStore, path: Path, step: Callable[[Path], None], name: str
) -> None:
    nothing(store)
    step(path)
    found = changed(store)
    assert list(found) == [name]
    assert (found[name] is None) == (step is delete)
    nothing(store)


def test_a_local_directory_is_not_looked_at(path: Path, kinds: dict[int, str]) -> None:
    kinds[path.stat().st_dev] = ""
    store = DirectoryStore(path)
    snapshot(store)
    assert store.due() is None
    store.close()


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="there is no other file system")
def test_links_of_a_local_directory_to_another_machine_are_read(path: Path, kinds: dict[int, str], blind: None) -> None:
    there = Path(f"/dev/shm/vethlib-{os.getpid()}")
    assert Path("/dev/shm").stat().st_dev != path.stat().st_dev
    kinds[path.stat().st_dev] = ""
    write(there, value("there", "peer"))
    (path / "there.json").symlink_to(there)
    store = DirectoryStore(path)
    try:
        snapshot(store)
        write(there, value("there", "peer", mtu=1400))
        assert list(changed(store)) == ["there"]
    finally:
        store.close()
        there.unlink()


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A directory on another file system."""
    if not os.path.isdir("/dev/shm"):
        pytest.skip("there is no other file system")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory)


@pytest.mark.parametrize("is_remote", [True, False])
def test_only_links_to_another_machine_are_read_regularly(
    tmp_path: Path,
    elsewhere: Path,
    kinds: dict[int, str],
    blind: None,
    monkeypatch: pytest.MonkeyPatch,
    is_remote: bool,
) -> None:
    assert elsewhere.stat().st_dev != tmp_path.stat().st_dev
    kinds[elsewhere.stat().st_dev] = ""
    path = (tmp_path if is_remote else elsewhere) / "store"
    path.mkdir()
    for name, folder in (("far", tmp_path), ("near", elsewhere), ("plain", path)):
        write(folder / f"{name}.json", value(name, "peer"))
        if folder != path:
            (path / f"{name}.json").symlink_to(folder / f"{name}.json")
    store = DirectoryStore(path)
    assert set(snapshot(store)) == {"far", "near", "plain"}
    nothing(store)
    read: list[str] = []

    def noting(name: str, *args: Any, **kwargs: Any) -> Content | None:
        read.append(name)
        return content(name, *args, **kwargs)

    monkeypatch.setattr(tracking, "content", noting)
    nothing(store)
    store.close()
    assert set(read) == {"far.json"}


def test_the_type_of_a_file_system_is_looked_up_once_for_many_links(
    path: Path, elsewhere: Path, kinds: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[int] = []

    def kind(device: int) -> str:
        looked_up.append(device)
        return ""

    monkeypatch.setattr(tracking, "remote_kind", kind)
    for number in range(20):
        write(elsewhere / f"v{number}", value(f"v{number}", "peer"))
        (path / f"v{number}.json").symlink_to(elsewhere / f"v{number}")
    store = DirectoryStore(path)
    assert len(snapshot(store)) == 23
    store.close()
    assert len(looked_up) <= 2


def test_the_log_names_the_file_system_once(
    store: DirectoryStore, caplog: pytest.LogCaptureFixture, path: Path
) -> None:
    caplog.clear()
    again = DirectoryStore(path)
    snapshot(again)
    nothing(again)
    again.close()
    (text,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "nfs4" in text


@pytest.mark.parametrize("kind", ["nfs4", ""])
def test_everything_is_read_again_if_that_is_requested(
    path: Path, kinds: dict[int, str], blind: None, kind: str
) -> None:
    """Also on a file system of an unknown type."""
    kinds[path.stat().st_dev] = kind
    store = DirectoryStore(path)
    snapshot(store)
    for step, _ in STEPS:
        step(path)
    store.reread()
    (first,) = store.read()
    assert isinstance(first, Snapshot)
    values = dict(first.values)

    def is_read() -> bool:
        for event in store.read():  # a missing file counts as deleted after a moment
            assert isinstance(event, Change)
            values[event.name] = event.value  # type: ignore[assignment]
        return {name for name, value in values.items() if value is not None} == {"a", "c", "linked"}

    assert poll(is_read)
    store.close()


def test_the_type_of_a_file_system_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = os.stat("/proc").st_dev
    assert remote.remote_kind(device) == ""
    monkeypatch.setattr(remote, "_REMOTE", frozenset({"proc"}))
    assert remote.remote_kind(device) == "proc"
    assert remote.remote_kind((1 << 20) - 1) == ""
