"""A directory that is missing, vanishes, reappears or is replaced: outages and snapshots, never deletions."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.capabilities import dropped
from tests.live.applying import value
from tests.stores import changed, is_readable, news, nothing, outage, snapshot, write
from vethlib.agent.stores.files import reading
from vethlib.agent.stores.files.directory import DirectoryStore
from vethlib.agent.stores.protocol import Snapshot
from vethlib.agent.stores.storecode import StoreCode
from vethlib.ns.descriptor import Descriptor
from vethlib.ns.opening import opened_directory


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return directory(tmp_path / "above" / "conf", "a")


@pytest.fixture
def follow(path: Path) -> Iterator[Callable[[Path], DirectoryStore]]:
    stores: list[DirectoryStore] = []

    def follow(path: Path) -> DirectoryStore:
        stores.append(DirectoryStore(path))
        return stores[-1]

    yield follow
    for store in stores:
        store.close()


Follow = Callable[[Path], DirectoryStore]


def directory(path: Path, *names: str) -> Path:
    path.mkdir(parents=True)
    for name in names:
        write(path / f"{name}.json", value(name, "peer"))
    return path


def test_a_directory_that_is_not_there_is_an_outage_until_it_comes(tmp_path: Path, follow: Follow) -> None:
    path = tmp_path / "x" / "y" / "conf"
    store = follow(path)
    assert outage(store) is StoreCode.MISSING
    due = store.due()
    assert due is not None
    assert 0.5 < due <= 1
    for above in (path.parent.parent, path.parent):
        above.mkdir()
        assert is_readable(store)
        assert store.read() == []  # told once
    path.mkdir()
    assert is_readable(store)
    assert snapshot(store) == {}
    assert store.due() is None
    write(path / "a.json", value("a", "b"))
    assert is_readable(store)
    assert list(changed(store)) == ["a"]


def test_a_directory_made_elsewhere_and_moved_into_place_is_read_whole(
    path: Path, tmp_path: Path, follow: Follow
) -> None:
    store = follow(tmp_path / "target")
    outage(store)
    path.rename(tmp_path / "target")
    assert is_readable(store)
    assert list(snapshot(store)) == ["a"]


def test_what_is_no_directory_is_an_outage_that_says_so(path: Path, tmp_path: Path, follow: Follow) -> None:
    file = tmp_path / "file"
    file.write_text("")
    store = follow(file)
    assert outage(store) is StoreCode.NOT_A_DIRECTORY
    file.unlink()
    assert is_readable(store)
    assert outage(store) is StoreCode.MISSING
    path.rename(file)
    assert is_readable(store)
    assert list(snapshot(store)) == ["a"]
    assert list(snapshot(follow(path.parent.parent))) == []
    nowhere = tmp_path / "loop"
    nowhere.symlink_to("loop")
    assert outage(follow(nowhere)) is StoreCode.CIRCULAR_LINK


def test_a_removed_directory_deletes_nothing(path: Path, follow: Follow) -> None:
    store = follow(path)
    snapshot(store)
    shutil.rmtree(path)
    assert is_readable(store)
    assert outage(store) is StoreCode.MISSING
    nothing(store)
    directory(path, "b")
    assert is_readable(store)
    found = snapshot(store)
    while list(found) != ["b"]:  # it may have been read before the file was in it
        found |= {name: one for name, one in changed(store).items() if one}
    assert path.is_dir()


def test_a_removal_is_noticed_though_someone_stands_in_the_directory(path: Path, follow: Follow) -> None:
    store = follow(path)
    snapshot(store)
    held = os.open(path, os.O_RDONLY)
    try:
        shutil.rmtree(path)
        assert is_readable(store)
        assert outage(store)
    finally:
        os.close(held)


@pytest.mark.parametrize("levels", [0, 1])
def test_a_directory_that_is_moved_away_is_an_outage_until_it_is_back(path: Path, follow: Follow, levels: int) -> None:
    store = follow(path)
    snapshot(store)
    moved = [path, path.parent][levels]
    away = moved.with_name("away")
    moved.rename(away)
    assert is_readable(store)
    assert outage(store)
    away.rename(moved)
    assert is_readable(store)
    assert list(snapshot(store)) == ["a"]
    write(path / "b.json", value("b", "a"))
    assert is_readable(store)
    assert list(changed(store)) == ["b"]


def test_a_directory_that_may_not_be_entered_is_an_outage(path: Path, follow: Follow) -> None:
    with dropped():
        store = follow(path)
        snapshot(store)
        for mode in (0o000, 0o400, 0o100):
            path.chmod(mode)
            assert is_readable(store)
            assert outage(store) is StoreCode.NOT_PERMITTED
            path.chmod(0o700)
            assert is_readable(store)
            assert list(snapshot(store)) == ["a"]


def test_a_way_that_may_not_be_gone_is_an_outage(path: Path, follow: Follow) -> None:
    with dropped():
        path.parent.chmod(0)
        store = follow(path)
        assert outage(store) is StoreCode.NOT_PERMITTED
        path.parent.chmod(0o700)
        assert list(snapshot(store)) == ["a"]


@pytest.mark.parametrize("names", [("b",), ()])
def test_another_directory_in_its_place_is_read(
    path: Path, tmp_path: Path, follow: Follow, names: tuple[str, ...]
) -> None:
    """By two renames, seen as one: an empty directory is believed, because somebody has put it there."""
    store = follow(path)
    snapshot(store)
    new = directory(tmp_path / "new", *names)
    path.rename(tmp_path / "old")
    new.rename(path)
    assert is_readable(store)
    assert list(snapshot(store)) == list(names)
    write(tmp_path / "old" / "a.json", value("a", "other"))
    nothing(store)
    write(path / "c.json", value("c", "other"))
    assert list(changed(store)) == ["c"]


def test_another_directory_above_is_noticed_too(path: Path, tmp_path: Path, follow: Follow) -> None:
    store = follow(path)
    snapshot(store)
    directory(tmp_path / "new" / "conf", "b")
    path.parent.rename(tmp_path / "old")
    (tmp_path / "new").rename(path.parent)
    assert is_readable(store)
    assert list(snapshot(store)) == ["b"]


@pytest.mark.parametrize("below", ["", "/sub"])
def test_a_link_that_is_switched_leads_to_the_new_directory(tmp_path: Path, follow: Follow, below: str) -> None:
    for version, name in (("v1", "a"), ("v2", "b"), ("v3", "c")):
        directory(Path(f"{tmp_path}/{version}{below}"), name)
    current = tmp_path / "current"
    current.symlink_to("v1")
    store = follow(Path(f"{current}{below}"))
    assert list(snapshot(store)) == ["a"]
    for version, name in (("v2", "b"), ("v3", "c"), ("v1", "a")):
        (tmp_path / "next").symlink_to(tmp_path / version)
        (tmp_path / "next").rename(current)
        assert is_readable(store)
        assert list(snapshot(store)) == [name]
    write(Path(f"{tmp_path}/v3{below}/x.json"), value("x", "y"))
    nothing(store)
    write(Path(f"{tmp_path}/v1{below}/x.json"), value("x", "y"))
    assert is_readable(store)
    assert list(changed(store)) == ["x"]


def test_a_link_that_leads_nowhere_is_an_outage_until_it_leads_somewhere(tmp_path: Path, follow: Follow) -> None:
    current = tmp_path / "current"
    current.symlink_to("v1")
    store = follow(current)
    assert outage(store)
    directory(tmp_path / "made" / "v1", "a").rename(tmp_path / "v1")
    assert is_readable(store)
    assert list(snapshot(store)) == ["a"]


def test_a_file_that_is_broken_in_the_new_directory_keeps_the_keys_it_had(
    path: Path, tmp_path: Path, follow: Follow
) -> None:
    store = follow(path)
    snapshot(store)
    new = directory(tmp_path / "new")
    (new / "a.json").write_text("[")
    path.rename(tmp_path / "old")
    new.rename(path)
    values = snapshot(store)
    assert list(values) == ["a"]
    assert values["a"].interface is None


def test_what_changed_during_an_outage_is_in_the_snapshot_that_ends_it(path: Path, follow: Follow) -> None:
    store = follow(path)
    snapshot(store)
    away = path.with_name("away")
    path.rename(away)
    outage(store)
    (away / "a.json").unlink()
    write(away / "b.json", value("b", "a"))
    away.rename(path)
    (found,) = news(store)
    assert isinstance(found, Snapshot)
    assert "b" in found.values
    assert changed(store) == {"a": None}


def test_nothing_keeps_the_directory_from_being_unmounted_or_its_watches_from_being_freed(
    path: Path, follow: Follow
) -> None:
    store = follow(path)
    snapshot(store)
    for _ in range(30):
        path.rename(path.with_name("away"))
        outage(store)
        path.with_name("away").rename(path)
        snapshot(store)
    descriptors = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)]
    assert not [target for target in descriptors if target.startswith(str(path))]
    (inotify,) = [fd for fd in os.listdir("/proc/self/fd") if _is_open(fd) and _is_inotify(fd)]
    watches = Path(f"/proc/self/fdinfo/{inotify}").read_text().count("inotify wd:")
    assert watches <= len(path.parts)


def _is_open(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


def _is_inotify(fd: str) -> bool:
    return os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:inotify"


def test_a_store_runs_no_other_program(path: Path) -> None:
    """ctypes.util.find_library() would: ldconfig, or a compiler."""
    script = f"""
import sys
sys.addaudithook(lambda event, args: event == 'subprocess.Popen' and sys.exit(f'runs {{args[0]}}'))
from vethlib.agent.stores.files.directory import DirectoryStore
store = DirectoryStore({str(path)!r})
print(list(store.read()[0].values))
store.close()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("['a']\n", "")


@pytest.mark.parametrize("failures", [1, 2])
def test_changes_are_noticed_after_a_moment_in_which_the_directory_could_not_be_opened(
    path: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    store = follow(path)
    assert list(snapshot(store)) == ["a"]
    results = iter([OSError(errno.EMFILE, os.strerror(errno.EMFILE))] * failures)

    def opened(at: str) -> Descriptor:
        if (error := next(results, None)) is not None:
            raise error
        return opened_directory(at)

    monkeypatch.setattr(reading, "opened_directory", opened)
    write(path / "b.json", value("b", "peer"))
    if failures == 2:
        outage(store)
    assert sorted(snapshot(store)) == ["a", "b"]
    write(path / "c.json", value("c", "peer"))
    assert list(changed(store)) == ["c"]
