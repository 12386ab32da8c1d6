"""A directory of configuration on a file system that is mounted and unmounted."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.applying import value
from tests.stores import changed, is_readable, news, nothing, snapshot, write
from vethlib.agent.stores.directory import DirectoryStore
from vethlib.agent.stores.protocol import Outage
from vethlib.agent.stores.storecode import StoreCode


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    """A mount point, unmounted after the test from all that is still mounted on it."""
    point = tmp_path / "point"
    point.mkdir()
    yield point
    while point.is_mount():
        run("umount", "-l", point)


def run(*argv: str | Path) -> None:
    subprocess.run([str(word) for word in argv], check=True)


def mount(point: Path) -> None:
    run("mount", "-t", "tmpfs", "none", point)


# A store is read whenever it was found readable: the news of a mount is there for one look only.


def outage(store: DirectoryStore) -> StoreCode:
    (found,) = news(store)
    assert isinstance(found, Outage), found
    return found.code


@pytest.mark.parametrize("lazily", [False, True])
def test_an_unmounted_file_system_is_an_outage_and_not_the_deletion_of_everything(point: Path, lazily: bool) -> None:
    mount(point)
    write(point / "a.json", value("a", "b"))
    store = DirectoryStore(point)
    assert list(snapshot(store)) == ["a"]
    run("umount", *(["-l"] if lazily else []), point)  # which the watches do not keep from it
    assert outage(store) is StoreCode.EMPTIED
    nothing(store)
    mount(point)
    assert is_readable(store)
    assert store.read() == []  # told once, and it is empty yet
    assert store.read() == []  # the watches that were left off say so
    assert not is_readable(store, 0)
    write(point / "b.json", value("b", "a"))
    assert list(snapshot(store)) == ["b"]
    store.close()


def test_a_file_put_into_the_bare_mount_point_ends_the_outage(point: Path) -> None:
    mount(point)
    write(point / "a.json", value("a", "b"))
    store = DirectoryStore(point)
    snapshot(store)
    run("umount", point)
    outage(store)
    write(point / "c.json", value("c", "b"))
    assert is_readable(store)
    assert list(snapshot(store)) == ["c"]
    store.close()


def test_a_file_system_unmounted_above_takes_the_directory_with_it(point: Path) -> None:
    mount(point)
    (point / "conf").mkdir()
    write(point / "conf" / "a.json", value("a", "b"))
    store = DirectoryStore(point / "conf")
    snapshot(store)
    run("umount", point)
    assert outage(store) is StoreCode.MISSING
    store.close()


def test_a_bind_mount_that_ends_is_an_outage_too(point: Path, tmp_path: Path) -> None:
    """Its file system goes on, so that inotify says nothing."""
    source = tmp_path / "source"
    source.mkdir()
    write(source / "a.json", value("a", "b"))
    run("mount", "--bind", source, point)
    store = DirectoryStore(point)
    snapshot(store)
    run("umount", point)
    assert outage(store) is StoreCode.EMPTIED
    run("mount", "--bind", source, point)
    assert list(snapshot(store)) == ["a"]
    store.close()


def test_a_file_system_mounted_over_the_directory_is_read(point: Path, tmp_path: Path) -> None:
    """As when the agent starts before it is mounted."""
    store = DirectoryStore(point)
    assert snapshot(store) == {}
    source = tmp_path / "source"
    source.mkdir()
    write(source / "a.json", value("a", "b"))
    run("mount", "--bind", source, point)
    assert list(snapshot(store)) == ["a"]
    write(source / "b.json", value("b", "a"))
    assert is_readable(store)
    assert list(changed(store)) == ["b"]
    store.close()


def test_other_mounts_are_no_news(point: Path, tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    conf.mkdir()
    store = DirectoryStore(conf)
    snapshot(store)
    mount(point)
    run("umount", point)
    assert store.read() == []
    assert not is_readable(store, 0)
    store.close()
