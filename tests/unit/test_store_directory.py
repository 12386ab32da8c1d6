"""A directory of files, followed as it changes."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.capabilities import dropped
from tests.live.applying import value
from tests.proportion import clock_tick
from tests.refusing import raises
from tests.stores import changed, interface_text, is_readable, nothing, snapshot, write
from tests.witness import open_fds
from vethlib.agent import Parsed, load
from vethlib.agent.stores.files.agenda import GRACE
from vethlib.agent.stores.files.directory import DirectoryStore
from vethlib.agent.stores.files.reading import Content, content
from vethlib.agent.stores.protocol import Change, Outage, Snapshot, Store, StoreError
from vethlib.agent.stores.storecode import StoreCode
from vethlib.errors import InvalidValue
from vethlib.follow.inotify import INotify

CONTENT = "vethlib.agent.stores.files.tracking.content"


@pytest.fixture
def opened(path: Path) -> Iterator[DirectoryStore]:
    """A store of the directory from which nothing has been read yet."""
    store = DirectoryStore(path)
    yield store
    store.close()


@pytest.fixture
def follow(path: Path) -> Iterator[Callable[[], DirectoryStore]]:
    """Opens stores of the directory and reads the first snapshot."""
    stores: list[DirectoryStore] = []

    def follow() -> DirectoryStore:
        store = DirectoryStore(path)
        stores.append(store)
        snapshot(store)
        return store

    yield follow
    for store in stores:
        store.close()


Follow = Callable[[], DirectoryStore]


def mtu(one: Parsed | None) -> int:
    assert one is not None
    assert one.interface is not None, one.problems
    return one.interface.mtu


def problem(one: Parsed | None) -> str:
    assert one is not None
    assert one.interface is None
    return str(one.problems[0])


def test_the_first_news_is_all_that_the_files_hold(path: Path, opened: DirectoryStore) -> None:
    write(path / "a.json", value("a", "b"))
    write(path / "more.json", value("b", "a"), value("c", "d", mtu=5))
    for other in (".hidden.json", "a.json~", "#a.json#", "notes.txt"):
        (path / other).write_text("{")
    (path / "sub.json").mkdir()
    (path / "sub").mkdir()
    write(path / "sub" / "d.json", value("d", "c"))
    store: Store = opened  # the type checker sees that it is one
    values = snapshot(store)
    assert list(values) == ["a", "b", "c"]
    assert problem(values["c"]).startswith("mtu 5")
    assert {one.source: one.interface for one in values.values()} == {
        one.source: one.interface for one in load([path]).parsed
    }
    assert store.read() == []
    assert not is_readable(store, 0)
    assert store.due() is None


def test_files_that_come_change_and_go_are_told_at_once(path: Path, follow: Follow) -> None:
    store = follow()
    write(path / "a.json", value("a", "b", mtu=1400))
    assert is_readable(store)
    assert mtu(changed(store)["a"]) == 1400
    write(path / "a.json", value("a", "b", mtu=1300))
    assert is_readable(store)
    assert mtu(changed(store)["a"]) == 1300
    (path / "a.json").unlink()
    assert is_readable(store)
    assert store.read() == []  # an editor may be about to put it back
    before = time.monotonic()
    assert changed(store) == {"a": None}
    assert time.monotonic() - before < GRACE + 20
    assert not is_readable(store, 0)
    assert store.due() is None


def test_changes_come_in_order(path: Path, follow: Follow) -> None:
    store = follow()
    for name in ("c", "a", "b"):
        write(path / f"{name}.json", value(name, "x"))
    write(path / "list.json", value("z", "x"), value("y", "x"))
    assert [one.name for one in store.read() if isinstance(one, Change)] == ["c", "a", "b", "z", "y"]


def test_one_element_of_a_list_changes_alone(path: Path, follow: Follow) -> None:
    ends = [value(f"veth{number}", "x") for number in range(9)]
    write(path / "list.json", *ends)
    store = follow()
    ends[4]["mtu"] = 1400
    write(path / "list.json", *ends)
    assert mtu(changed(store).pop("veth4")) == 1400
    write(path / "list.json", *ends[:3], *ends[4:])
    assert changed(store) == {"veth3": None}


def test_touching_a_file_and_writing_it_in_other_words_changes_nothing(path: Path, follow: Follow) -> None:
    file = write(path / "a.json", value("a", "b", phys_address="d2:74:8c:12:67:d2"))
    store = follow()
    os.utime(file)
    file.chmod(0o600)
    assert is_readable(store)
    assert store.read() == []
    write(file, value("a", "b", phys_address="D2:74:8C:12:67:D2", mtu=0))
    nothing(store)
    file.rename(path / "renamed.json")
    nothing(store)
    (path / "renamed.json").unlink()
    assert changed(store) == {"a": None}


def test_only_files_that_events_name_are_read_again(
    path: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        write(path / f"veth{number}.json", value(f"veth{number}", "x"))
    store = follow()
    looked_at: list[str] = []

    def spy(name: str, directory: int, *, follow: bool, longest: int) -> Content | None:
        looked_at.append(name)
        return content(name, directory, follow=follow, longest=longest)

    monkeypatch.setattr(CONTENT, spy)
    write(path / "veth7.json", value("veth7", "y"))
    (path / "notes.txt").write_text("nothing of ours")
    assert list(changed(store)) == ["veth7"]
    assert looked_at == ["veth7.json"]


def test_a_file_that_is_no_json_refuses_its_keys_until_it_is_mended(path: Path, follow: Follow) -> None:
    file = write(path / "list.json", value("a", "b"), value("b", "a"))
    store = follow()
    file.write_text('[{"name": "a"')
    changes = changed(store)
    assert list(changes) == ["a", "b"]
    for one in changes.values():
        assert "line 1, column 14: not JSON" in problem(one)
    file.write_text(f"[{interface_text('a', 'b')}]")
    changes = changed(store)
    assert changes["b"] is None
    assert mtu(changes["a"]) == 0


def test_a_truncated_file_is_not_even_seen_until_its_writer_is_done(path: Path, follow: Follow) -> None:
    file = write(path / "a.json", value("a", "b"))
    store = follow()
    with file.open("w") as writing:
        writing.write(interface_text("a", "b", mtu=1400)[:20])
        writing.flush()
        nothing(store)
        writing.write(interface_text("a", "b", mtu=1400)[20:])
    assert is_readable(store)
    assert mtu(changed(store)["a"]) == 1400


def test_a_file_left_empty_is_refused_and_not_deleted(path: Path, follow: Follow) -> None:
    file = write(path / "a.json", value("a", "b"))
    store = follow()
    file.write_text("")
    assert "not JSON" in problem(changed(store)["a"])


def test_a_new_file_is_left_to_its_writer(path: Path, follow: Follow) -> None:
    store = follow()
    with (path / "a.json").open("w") as writing:
        writing.write(interface_text("a")[:20])
        writing.flush()
        os.fchmod(writing.fileno(), 0o600)
        assert is_readable(store)
        assert store.read() == []
        writing.write(interface_text("a")[20:])
    assert list(changed(store)) == ["a"]
    nothing(store)


def test_a_writer_that_never_ends_is_not_waited_for(path: Path, follow: Follow) -> None:
    store = follow()
    with (path / "a.json").open("w") as writing:
        writing.write(interface_text("a"))
        writing.flush()
        assert mtu(changed(store)["a"]) == 0


def test_a_key_in_two_files_is_refused_until_one_of_them_goes(path: Path, follow: Follow) -> None:
    write(path / "one.json", value("a", "b"))
    store = follow()
    write(path / "two.json", value("a", "b", mtu=1400))
    text = f"name 'a': configured in {path}/one.json and in {path}/two.json: keep one"
    assert problem(changed(store)["a"]) == text
    (path / "one.json").unlink()
    assert mtu(changed(store)["a"]) == 1400


def test_moving_an_interface_to_another_file_is_no_change(path: Path, follow: Follow) -> None:
    write(path / "one.json", value("a", "b"), value("b", "a"))
    store = follow()
    (path / "one.json").rename(path / "two.json")
    nothing(store)
    (path / "two.json").rename(path / "two.txt")
    write(path / "three.json", value("b", "a"), value("a", "b"))
    nothing(store)


def test_a_file_that_cannot_be_decoded_keeps_its_keys_when_it_is_renamed(path: Path, follow: Follow) -> None:
    file = write(path / "one.json", value("a", "b"))
    store = follow()
    file.write_text("{")
    changed(store)
    file.rename(path / "two.json")
    told = changed(store)
    assert list(told) == ["a"]
    assert problem(told["a"])
    nothing(store)


def test_a_snapshot_is_incomplete_while_a_file_may_hold_anything(path: Path, opened: DirectoryStore) -> None:
    write(path / "a.json", value("a", "b"))
    (path / "lost.json").write_text("[{]")
    (first,) = opened.read()
    assert isinstance(first, Snapshot)
    assert not first.complete
    assert list(first.values) == ["a", "lost"]
    write(path / "b.json", value("b", "a"))
    assert list(changed(opened)) == ["b"]
    write(path / "lost.json", value("c", "d"))
    assert snapshot(opened).keys() == {"a", "b", "c"}
    write(path / "lost.json", value("c", "e"))
    assert list(changed(opened)) == ["c"]


def test_it_is_complete_again_when_that_file_goes(path: Path, opened: DirectoryStore) -> None:
    (path / "lost.json").write_text("")
    (first,) = opened.read()
    assert isinstance(first, Snapshot)
    assert not first.complete
    (path / "lost.json").unlink()
    assert snapshot(opened) == {}


def test_a_file_that_may_not_be_read_refuses_its_keys_and_is_not_deleted(path: Path, follow: Follow) -> None:
    file = write(path / "a.json", value("a", "b"))
    store = follow()
    with dropped():
        file.chmod(0)
        assert is_readable(store)
        text = f"file '{file}': cannot be read: Permission denied"
        assert problem(changed(store)["a"]) == text
        file.chmod(0o600)
        assert is_readable(store)
        assert mtu(changed(store)["a"]) == 0


def test_an_unreadable_file_that_nobody_knows_makes_the_snapshot_incomplete(path: Path, opened: DirectoryStore) -> None:
    file = write(path / "a.json", value("b", "a"))
    file.chmod(0)
    with dropped():
        (first,) = opened.read()
        assert isinstance(first, Snapshot)
        assert not first.complete
        assert list(first.values) == ["a"]
        file.chmod(0o600)
        assert list(snapshot(opened)) == ["b"]


def test_an_error_without_an_event_is_tried_again_every_second(
    path: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(path / "a.json", value("a", "b"))
    store = follow()

    def broken(name: str, directory: int, *, follow: bool, longest: int) -> Content:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(CONTENT, broken)
    os.utime(file)
    assert "Input/output error" in problem(changed(store)["a"])
    monkeypatch.setattr(CONTENT, content)
    due = store.due()
    assert due is not None
    assert 0 < due <= 1
    assert mtu(changed(store)["a"]) == 0
    assert store.due() is None


def test_what_is_no_file_is_never_waited_for(path: Path, follow: Follow) -> None:
    store = follow()
    os.mkfifo(path / "a.json")
    assert "not a regular file" in problem(changed(store)["a"])


def test_a_directory_in_a_files_place_is_none_of_ours(path: Path, follow: Follow) -> None:
    file = write(path / "a.json", value("a", "b"))
    store = follow()
    file.unlink()
    file.mkdir()
    assert changed(store) == {"a": None}


def test_a_hard_link_and_a_symbolic_link_appear_complete(path: Path, tmp_path: Path, follow: Follow) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    store = follow()
    for name, link in (("a", os.link), ("b", os.symlink)):
        write(elsewhere / f"{name}.json", value(name, "x"))
        link(elsewhere / f"{name}.json", path / f"{name}.json")
        assert is_readable(store)
        assert [one.name for one in store.read() if isinstance(one, Change)] == [name]


def test_a_file_that_has_other_names_is_followed_under_all_of_them(path: Path, tmp_path: Path, follow: Follow) -> None:
    file = write(path / "a.json", value("a", "b"))
    os.link(file, tmp_path / "before")
    store = follow()
    (tmp_path / "before").write_text(interface_text("a", "b", mtu=1400))
    assert is_readable(store)
    assert mtu(changed(store)["a"]) == 1400
    write(file, value("a", "b", mtu=1300))
    assert mtu(changed(store)["a"]) == 1300
    os.link(file, path / "b.json")
    assert is_readable(store)
    linked = changed(store)["a"]
    assert linked is not None
    assert (mtu(linked), len(linked.warnings)) == (1300, 1)
    (path / "b.json").write_text(interface_text("c", "b"))
    assert list(changed(store)) == ["a", "c"]
    (path / "b.json").unlink()
    assert mtu(changed(store)["c"]) == 0


def test_a_symbolic_link_is_followed_to_what_happens_at_its_end(path: Path, tmp_path: Path, follow: Follow) -> None:
    """Its target is written, replaced, removed and put back; then the link points elsewhere, and is removed."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    target = write(elsewhere / "target", value("a", "b"))
    (tmp_path / "way").symlink_to("elsewhere")
    (path / "a.json").symlink_to("../way/target")
    store = follow()
    target.write_text(interface_text("a", "b", mtu=1400))
    assert is_readable(store)
    assert mtu(changed(store)["a"]) == 1400
    write(target, value("a", "b", mtu=1300))
    assert is_readable(store)
    assert mtu(changed(store)["a"]) == 1300
    target.unlink()
    assert "cannot be read: No such file or directory" in problem(changed(store)["a"])
    write(target, value("a", "b", mtu=1200))
    assert mtu(changed(store)["a"]) == 1200
    other = tmp_path / "other"
    other.mkdir()
    write(other / "target", value("a", "b", mtu=1100))
    (tmp_path / "new").symlink_to("other")
    (tmp_path / "new").rename(tmp_path / "way")
    assert is_readable(store)
    assert mtu(changed(store)["a"]) == 1100
    (path / "a.json").unlink()
    assert changed(store) == {"a": None}


def test_a_file_with_two_names_is_read_once_as_load_does(path: Path, follow: Follow) -> None:
    write(path / "a.json", value("a", "b"))
    (path / "b.json").symlink_to("a.json")
    store = follow()
    write(path / "a.json", value("a", "b", mtu=1400))
    assert mtu(changed(store)["a"]) == 1400
    (path / "b.json").unlink()
    nothing(store)


def test_events_that_were_lost_are_made_up_for_by_looking_at_everything(path: Path, follow: Follow) -> None:
    queue = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for number in range(50):
        write(path / f"veth{number}.json", value(f"veth{number}", "x"))
    store = follow()
    one, other = path / "noise.1", path / "noise.2"
    one.write_text("")
    for _ in range(queue // 4 + 1):  # two events each
        one.rename(other)
        other.rename(one)
    (path / "veth7.json").unlink()
    write(path / "veth8.json", value("veth8", "y"))
    write(path / "new.json", value("new", "x"))
    (found,) = store.read()
    assert isinstance(found, Snapshot)
    assert "new" in found.values
    assert "veth7" in found.values  # for a moment, as with any file that has vanished
    assert found.values["veth8"].interface
    assert found.values["veth8"].interface.peer_if_name == "y"
    assert changed(store) == {"veth7": None}


def test_an_emptied_directory_is_the_deletion_of_everything(path: Path, follow: Follow) -> None:
    for name in "ab":
        write(path / f"{name}.json", value(name, "x"))
    store = follow()
    for name in "ab":
        (path / f"{name}.json").unlink()
    gone = changed(store)
    while len(gone) < 2:  # each has its own grace
        gone |= changed(store)
    assert gone == {"a": None, "b": None}


def test_a_relative_path_stays_the_one_it_was(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(path / "a.json", value("a", "b"))
    store = DirectoryStore("conf")
    monkeypatch.chdir("/")
    assert snapshot(store)["a"].source == "conf/a.json"
    write(path / "b.json", value("b", "a"))
    assert list(changed(store)) == ["b"]
    store.close()


def test_statuses_among_the_configuration_are_refused_or_overlooked(path: Path, follow: Follow) -> None:
    (path.parent / "link").symlink_to("conf")
    for same in (path, path.parent / "link", f"{path}/"):
        with raises(InvalidValue, field="status_dir"):
            DirectoryStore(path, status_dir=same)
    (path / "status").mkdir()
    store = follow()
    (path / "status" / "a.json").write_text("{")
    nothing(store)


def test_a_user_without_an_inotify_instance_left_is_told_the_cure(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(INotify.__base__, "__init__", refuse)
    with raises(StoreError, code=StoreCode.NO_WATCHES, errno=errno.EMFILE):
        DirectoryStore(path)


def test_a_user_without_a_watch_left_is_an_outage_with_the_cure(
    path: Path, opened: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(INotify.__base__, "add_watch", refuse)
        (found,) = opened.read()
        assert isinstance(found, Outage)
        assert found.code is StoreCode.NO_WATCHES
        assert "fs.inotify.max_user_watches" in found.reason
    assert snapshot(opened) == {}


def test_a_closed_store_has_given_everything_back(path: Path) -> None:
    before = open_fds()
    store = DirectoryStore(path)
    store.read()
    store.close()
    store.close()
    assert store.read() == []
    assert store.due() is None
    assert open_fds() == before


def test_a_change_among_many_files_costs_no_more_than_among_few(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stores: list[tuple[Path, DirectoryStore]] = []
        for count in (1, 2000):
            directory = tmp_path / str(count)
            directory.mkdir()
            for number in range(count):
                (directory / f"veth{number}.json").write_text(json.dumps(value(f"veth{number}", "x")))
            store = stack.enter_context(closing(DirectoryStore(directory)))
            snapshot(store)
            stores.append((directory, store))
        taken: dict[DirectoryStore, list[float]] = {store: [] for _, store in stores}
        # In turn, because a processor may become half as fast from one moment to the next.
        for size in range(1400, 1420):
            for directory, store in stores:
                write(directory / "veth0.json", value("veth0", "x", mtu=size))
                before = time.thread_time()
                assert mtu(changed(store)["veth0"]) == size
                taken[store].append(time.thread_time() - before)
    few, many = map(min, taken.values())
    assert many <= max(few, clock_tick(time.thread_time)) * 2
