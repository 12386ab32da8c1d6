"""A directory of configuration on a file system that is mounted and unmounted."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

from tests.live.applying import value
from tests.patience import Patience
from tests.stores import changed, is_readable, nothing, outage, snapshot, write
from vethlib.agent import Parsed, State
from vethlib.agent.status import Status
from vethlib.agent.stores.files.directory import DirectoryStore
from vethlib.agent.stores.protocol import StoreError
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


@pytest.fixture
def statuses(tmp_path: Path) -> Path:
    """The directory in which the agents of each test publish statuses, and leave notes for their successors."""
    return tmp_path / "statuses"


def run_before(point: Path, statuses: Path) -> None:
    """An agent that has followed the store on its file system, and was stopped."""
    mount(point)
    write(point / "a.json", value("a", "b"))
    with closing(DirectoryStore(point, status_dir=statuses)) as store:
        assert list(snapshot(store)) == ["a"]


def test_a_file_system_that_is_not_mounted_at_a_start_is_an_outage_and_not_the_deletion_of_everything(
    point: Path, statuses: Path
) -> None:
    run_before(point, statuses)
    run("umount", point)
    for _ in range(2):  # it stays so however often the agent is started
        with closing(DirectoryStore(point, status_dir=statuses)) as store:
            assert outage(store) is StoreCode.EMPTIED
            nothing(store)
    with closing(DirectoryStore(point, status_dir=statuses)) as store:
        outage(store)
        mount(point)
        write(point / "b.json", value("b", "a"))
        assert is_readable(store)
        assert list(snapshot(store)) == ["b"]


def emptied_before(point: Path, statuses: Path) -> None:
    with closing(DirectoryStore(point, status_dir=statuses)) as store:
        snapshot(store)
        (point / "a.json").unlink()
        assert changed(store) == {"a": None}
    run("umount", point)


def emptied_since(point: Path, statuses: Path) -> None:
    (point / "a.json").unlink()


def renewed_since(point: Path, statuses: Path) -> None:
    run("umount", point)
    with closing(DirectoryStore(point.parent / "other", status_dir=statuses)) as store:
        snapshot(store)  # the agent has followed another store in the meantime


def noted_otherwise(point: Path, statuses: Path) -> None:
    run("umount", point)
    (statuses / ".store").write_text('{"path": [], "device": "x"}')


def not_noted(point: Path, statuses: Path) -> None:
    run("umount", point)
    (statuses / ".store").unlink()


@pytest.mark.parametrize("since", [emptied_before, emptied_since, renewed_since, noted_otherwise, not_noted])
def test_a_directory_that_is_empty_at_a_start_for_another_reason_is_believed(
    point: Path, statuses: Path, since: Callable[[Path, Path], None]
) -> None:
    (point.parent / "other").mkdir()
    write(point.parent / "other" / "x.json", value("x", "y"))
    run_before(point, statuses)
    since(point, statuses)
    with closing(DirectoryStore(point, status_dir=statuses)) as store:
        assert snapshot(store) == {}


@contextmanager
def full(statuses: Path) -> Iterator[None]:
    """The file system of the statuses has no room for another file."""
    statuses.mkdir(exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", "size=64k", "none", statuses)
    filler = statuses / "filler"
    with open(filler, "wb", buffering=0) as file, pytest.raises(OSError) as error:
        while True:
            file.write(bytes(4096))
    assert error.value.errno == errno.ENOSPC
    yield
    filler.unlink()


@contextmanager
def in_the_way(statuses: Path) -> Iterator[None]:
    """A file has the name of the directory."""
    statuses.write_text("")
    yield
    statuses.unlink()


@contextmanager
def taken(statuses: Path) -> Iterator[None]:
    """A directory has the name of the note."""
    (statuses / ".store").mkdir(parents=True)
    yield
    (statuses / ".store").rmdir()


@pytest.fixture
def undone(statuses: Path) -> Iterator[None]:
    yield
    while statuses.is_mount():
        run("umount", "-l", statuses)


def publish(store: DirectoryStore, statuses: Path, name: str = "a") -> None:
    """Publish a status, as often as the service tries it."""
    patience = Patience(30)
    while not (statuses / f"{name}.json").is_file():
        assert not patience.is_over()
        try:
            store.publish({name: Status(name, State.CONFIGURED, "", 1.0)})
        except StoreError:
            is_readable(store)


def follow_until_noted(store: DirectoryStore, statuses: Path) -> None:
    """Follow a store, in which nothing happens, only when it asks for it."""
    patience = Patience(30)
    while not (statuses / ".store").is_file():
        assert not patience.is_over()
        if is_readable(store, min(1.0, 1.0 if (due := store.due()) is None else due)) or due is not None:
            assert store.read() == []


def is_protected(point: Path, statuses: Path) -> None:
    """The next run does not take the bare mount point for the store."""
    run("umount", point)
    with closing(DirectoryStore(point, status_dir=statuses)) as store:
        assert outage(store) is StoreCode.EMPTIED


@pytest.mark.usefixtures("undone")
@pytest.mark.parametrize("publishes", [True, False])
@pytest.mark.parametrize("refused", [full, in_the_way, taken])
def test_a_file_system_that_could_not_be_noted_at_first_is_noted_as_soon_as_that_is_possible(
    point: Path, statuses: Path, refused: Callable[[Path], AbstractContextManager[None]], publishes: bool
) -> None:
    mount(point)
    write(point / "a.json", value("a", "b"))
    with closing(DirectoryStore(point, status_dir=statuses)) as store:
        with refused(statuses):
            assert list(snapshot(store)) == ["a"]
        if publishes:
            publish(store, statuses)
        follow_until_noted(store, statuses)
    is_protected(point, statuses)


@pytest.mark.usefixtures("undone")
@pytest.mark.parametrize("refused", [full, in_the_way, taken])
def test_a_file_system_that_could_not_be_noted_is_noted_at_the_latest_at_the_end(
    point: Path, statuses: Path, refused: Callable[[Path], AbstractContextManager[None]]
) -> None:
    mount(point)
    write(point / "a.json", value("a", "b"))
    with closing(DirectoryStore(point, status_dir=statuses)) as store, refused(statuses):
        assert list(snapshot(store)) == ["a"]
    is_protected(point, statuses)


def remove_note(statuses: Path) -> None:
    (statuses / ".store").unlink()


@pytest.mark.parametrize("publishes", [True, False])
@pytest.mark.parametrize("remove", [shutil.rmtree, remove_note])
def test_a_note_that_was_removed_is_written_again_with_the_statuses_or_at_the_end(
    point: Path, statuses: Path, remove: Callable[[Path], None], publishes: bool
) -> None:
    mount(point)
    write(point / "a.json", value("a", "b"))
    with closing(DirectoryStore(point, status_dir=statuses)) as store:
        assert list(snapshot(store)) == ["a"]
        publish(store, statuses, "a")
        remove(statuses)
        if publishes:
            publish(store, statuses, "b")
            assert {file.name for file in statuses.iterdir()} == {"a.json", "b.json", ".store"}
    is_protected(point, statuses)


def test_a_note_that_cannot_be_written_again_does_not_keep_a_removed_directory_from_its_statuses(
    point: Path, statuses: Path
) -> None:
    """Only its next publication creates it, because it may have the inode number of the removed file."""
    mount(point)
    write(point / "a.json", value("a", "b"))
    with closing(DirectoryStore(point, status_dir=statuses)) as store:
        assert list(snapshot(store)) == ["a"]
        publish(store, statuses, "a")
        shutil.rmtree(statuses)
        (point / "a.json").unlink()
        assert changed(store) == {"a": None}
        nothing_but_retries(store)
        assert not statuses.exists()
        publish(store, statuses, "b")
        assert {file.name for file in statuses.iterdir()} >= {"a.json", "b.json"}


def nothing_but_retries(store: DirectoryStore) -> None:
    for _ in range(3):
        if (due := store.due()) is not None:
            time.sleep(min(due, 0.5))
        assert store.read() == []


def test_a_forked_child_that_closes_its_copy_leaves_the_note_alone(point: Path, statuses: Path) -> None:
    mount(point)
    write(point / "a.json", value("a", "b"))
    with closing(DirectoryStore(point, status_dir=statuses)) as store:
        assert list(snapshot(store)) == ["a"]
        remove_note(statuses)
        if not (pid := os.fork()):
            store.close()
            os._exit(0)
        os.waitpid(pid, 0)
        assert not (statuses / ".store").exists()


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


def test_a_change_of_a_file_that_is_mounted_on_one_of_a_store_is_news(point: Path, tmp_path: Path) -> None:
    mount(point)  # a file of another file system is mounted, as of a volume in a container
    volume = write(point / "volume", value("a", "b"))
    path = tmp_path / "conf"
    path.mkdir()
    (path / "a.json").touch()
    run("mount", "--bind", volume, path / "a.json")
    try:
        with closing(DirectoryStore(path)) as store:
            assert list(snapshot(store)) == ["a"]
            volume.write_text(volume.read_text().replace('"a"', '"c"'))
            assert is_readable(store)
            assert changed(store).keys() == {"a", "c"}
            nothing(store)
    finally:
        run("umount", path / "a.json")


def test_what_is_mounted_on_a_file_of_a_store_or_unmounted_is_news(point: Path, tmp_path: Path) -> None:
    mount(point)
    path = tmp_path / "conf"
    path.mkdir()
    file = write(path / "a.json", value("a", "b"))
    with closing(DirectoryStore(path)) as store:
        assert list(snapshot(store)) == ["a"]
        for mtu in (1300, 1400):
            run("mount", "--bind", write(point / f"volume{mtu}", value("a", "b", mtu=mtu)), file)
            assert mtu_of(changed(store)) == mtu
        for mtu in (1300, 0):
            run("umount", file)
            assert mtu_of(changed(store)) == mtu
        nothing(store)


def mtu_of(found: dict[str, Parsed | None]) -> int:
    (parsed,) = found.values()
    assert parsed is not None
    assert parsed.interface is not None
    return parsed.interface.mtu
