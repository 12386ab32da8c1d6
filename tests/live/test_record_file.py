"""The file of the record: entries that a process could not write are written later, whatever others write."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.live.applying import LABEL
from tests.mounts import unmount_all
from tests.patience import Patience
from tests.witness import open_fds
from vethlib import Session
from vethlib.agent.host import recordfile
from vethlib.agent.host.recordfile import RecordFile
from vethlib.agent.planning.recorded import RecordedEnd, RecordedPair
from vethlib.ns.syscalls import mount


def pair(number: int) -> RecordedPair:
    a, b = (
        RecordedEnd(f"{name}{number}", (4, inode + number), 7, 2, f"{name}{number}", f"02:00:00:00:00:0{number % 10}")
        for name, inode in (("a", 1000), ("b", 2000))
    )
    return RecordedPair(a, b)


def add(records: RecordFile, *numbers: int) -> None:
    """Build pairs, each in a pass of its own."""
    for number in numbers:
        records.refresh()
        records.write([records.record.add(pair(number))])


def numbers(records: RecordFile) -> set[int]:
    records.refresh()
    return {int(known.a.name[1:]) for known in records.record}


def in_file(session: Session, directory: Path) -> set[int]:
    with RecordFile(session, LABEL, str(directory), read_only=True) as records:
        return numbers(records)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system of 64 KiB."""
    mount(b"tmpfs", os.fsencode(tmp_path), b"tmpfs", 0, b"size=64k,mode=755")
    try:
        directory = tmp_path / "record"
        directory.mkdir(mode=0o755)
        yield directory
    finally:
        unmount_all(tmp_path)


def fill(directory: Path) -> Path:
    """Fill the file system, except for the rest of the page that the record has begun."""
    filler = directory.parent / "filler"
    with open(filler, "wb", buffering=0) as file, pytest.raises(OSError) as full:
        while True:
            file.write(b"x" * 4096)
    assert full.value.errno == errno.ENOSPC
    return filler


@pytest.mark.parametrize("built", [1, 20, 99])
def test_what_a_full_file_system_has_refused_is_written_when_there_is_room(
    session: Session, small: Path, built: int
) -> None:
    with RecordFile(session, LABEL, str(small)) as records:
        add(records, 0)
        filler = fill(small)
        add(records, *range(1, 1 + built))
        assert numbers(records) == set(range(1 + built))
        assert (records.problem != "") is (in_file(session, small) != numbers(records))
        filler.unlink()
        add(records, 200)
        assert records.problem == ""
        assert in_file(session, small) == numbers(records) == {*range(1 + built), 200}


@contextmanager
def full(directory: Path) -> Iterator[None]:
    filler = fill(directory)
    yield
    filler.unlink()


@contextmanager
def no_directory(directory: Path) -> Iterator[None]:
    """A file has the name of the directory, which was removed."""
    shutil.rmtree(directory)
    directory.write_text("")
    yield
    directory.unlink()


@contextmanager
def taken(directory: Path) -> Iterator[None]:
    """A directory has the name of the file."""
    (path,) = directory.glob("pairs.*[0-9]")
    path.unlink()
    path.mkdir()
    yield
    path.rmdir()


Refused = Callable[[Path], AbstractContextManager[None]]
refused = pytest.mark.parametrize("refused", [full, no_directory, taken])


def wait_until_written(records: RecordFile) -> None:
    """Do for a record what the configurator does for it while nothing happens."""
    patience = Patience(60)
    while (due := records.due()) is not None:
        assert not patience.is_over()
        time.sleep(due)
        records.try_again()


@refused
@pytest.mark.parametrize("built", [60, 99])
def test_what_was_refused_is_written_without_another_fact_when_that_is_possible(
    session: Session, small: Path, refused: Refused, built: int
) -> None:
    with RecordFile(session, LABEL, str(small)) as records:
        add(records, 0)
        assert records.due() is None
        with refused(small):
            add(records, *range(1, 1 + built))
            assert records.problem != ""
            assert records.due() is not None
            for _ in range(3):
                due = records.due()
                assert due is not None
                time.sleep(due)
                records.try_again()
            assert records.problem != ""
        wait_until_written(records)
        assert records.problem == ""
        assert in_file(session, small) == numbers(records) == set(range(1 + built))


@refused
def test_what_was_refused_is_written_at_the_latest_at_the_end(session: Session, small: Path, refused: Refused) -> None:
    with RecordFile(session, LABEL, str(small)) as records:
        add(records, 0)
        with refused(small):
            add(records, *range(1, 99))
            assert records.problem != ""
    records.close()
    assert in_file(session, small) == set(range(99))


@refused
def test_a_record_that_cannot_be_written_at_the_end_is_closed_all_the_same(
    session: Session, small: Path, refused: Refused
) -> None:
    before = open_fds()
    with RecordFile(session, LABEL, str(small)) as records:
        add(records, 0)
        with refused(small):
            add(records, *range(1, 99))
            records.close()
            assert open_fds() == before


def test_a_removed_file_is_written_again_at_the_end(session: Session, tmp_path: Path) -> None:
    directory = tmp_path / "record"
    directory.mkdir(mode=0o755)
    with RecordFile(session, LABEL, str(directory)) as records:
        add(records, 1, 2)
        shutil.rmtree(directory)
    assert in_file(session, directory) == {1, 2}


def test_a_record_of_nothing_asks_for_nothing(session: Session, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    directory = tmp_path / "record"
    with RecordFile(session, LABEL, str(directory)) as records:
        records.refresh()
        assert records.due() is None
    assert not directory.exists()


def test_a_process_that_only_reads_neither_writes_again_nor_at_the_end(session: Session, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with RecordFile(session, LABEL, str(tmp_path)) as records:
        add(records, 1)
        path = Path(records.path)
    with RecordFile(session, LABEL, str(tmp_path), read_only=True) as reading:
        assert numbers(reading) == {1}
        path.unlink()
        assert numbers(reading) == {1}
        assert reading.due() is None
        reading.try_again()
    assert not path.exists()


def test_a_forked_child_that_closes_its_copy_writes_nothing(session: Session, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with RecordFile(session, LABEL, str(tmp_path)) as records:
        add(records, 1)
        path = Path(records.path)
        path.unlink()
        if not (pid := os.fork()):
            records.close()
            os._exit(0)
        os.waitpid(pid, 0)
        assert not path.exists()


Other = Callable[[RecordFile, Path], None]


def appends(other: RecordFile, directory: Path) -> None:
    add(other, 300)


def rewrites(other: RecordFile, directory: Path) -> None:
    add(other, 300, *[300] * 600)


def writes_a_new_one(other: RecordFile, directory: Path) -> None:
    for file in directory.glob("pairs.*"):
        file.unlink()
    add(other, 300)


def forgets(other: RecordFile, directory: Path) -> None:
    add(other, 300)
    other.write([other.record.forget(pair(1).a.id)])


@pytest.mark.parametrize("others", [appends, rewrites, writes_a_new_one, forgets])
@pytest.mark.parametrize("seen", [True, False], ids=["seen by the next look", "between look and write"])
def test_what_could_not_be_written_survives_what_others_write_meanwhile(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: Other, seen: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    tmp_path.chmod(0o755)
    with RecordFile(session, LABEL, str(tmp_path)) as records, RecordFile(session, LABEL, str(tmp_path)) as other:
        add(records, 1, 2)
        other.refresh()
        with monkeypatch.context() as full:
            full.setattr(recordfile, "write_all", refuse)
            add(records, 3)
        assert records.problem != ""
        others(other, tmp_path)
        if seen:
            add(records, 4)
        else:
            records.write([records.record.add(pair(4))])
        expected = {1, 2, 3, 4, 300} - ({1} if others is forgets else set())
        assert in_file(session, tmp_path) == numbers(records) == numbers(other) == expected
        assert (records.problem, other.problem) == ("", "")


@pytest.mark.parametrize("others", [appends, rewrites, forgets])
def test_what_others_write_between_a_look_and_a_write_is_kept(session: Session, tmp_path: Path, others: Other) -> None:
    tmp_path.chmod(0o755)
    with RecordFile(session, LABEL, str(tmp_path)) as records, RecordFile(session, LABEL, str(tmp_path)) as other:
        add(records, 1, 2)
        others(other, tmp_path)
        records.write([records.record.add(pair(4))])
        expected = {1, 2, 4, 300} - ({1} if others is forgets else set())
        assert in_file(session, tmp_path) == numbers(records) == numbers(other) == expected


@pytest.mark.parametrize("looks", [True, False])
def test_a_file_that_could_not_be_read_for_a_moment_is_no_problem_later(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: bool
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    tmp_path.chmod(0o755)
    with RecordFile(session, LABEL, str(tmp_path)) as records, RecordFile(session, LABEL, str(tmp_path)) as other:
        add(records, 1)
        add(other, 2)
        with monkeypatch.context() as out_of_descriptors:
            out_of_descriptors.setattr("vethlib.agent.host.recordfile.os.open", refuse)
            records.refresh()
        assert records.problem != ""
        if looks:
            assert numbers(records) == {1, 2}
        else:
            wait_until_written(records)
            assert {int(known.a.name[1:]) for known in records.record} == {1, 2}
        assert records.problem == ""


# What becomes of the file while another process has an older version of it in memory.
def is_removed(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def keeps_its_inode(path: Path, content: bytes) -> None:
    """Replace it as on ext4, which gives a new file the inode number of the last removed file."""
    path.write_bytes(content)


replaced = pytest.mark.parametrize("replace", [is_removed, keeps_its_inode])


def content_of(session: Session, directory: Path, *numbers: int) -> bytes:
    """Return what a process writes if it finds no file."""
    directory.mkdir(mode=0o755)
    with RecordFile(session, LABEL, str(directory)) as records:
        add(records, *numbers)
        return Path(records.path).read_bytes()


@replaced
@pytest.mark.parametrize("built", [[2], [12], [2, 3], [123]], ids=str)
@pytest.mark.parametrize("known", [[1], [1, 4, 5]], ids=str)
def test_a_new_record_of_another_process_does_not_make_what_was_built_foreign(
    session: Session, tmp_path: Path, replace: Callable[[Path, bytes], None], built: list[int], known: list[int]
) -> None:
    tmp_path.chmod(0o755)
    with RecordFile(session, LABEL, str(tmp_path)) as records:
        add(records, *known)
        replace(Path(records.path), content_of(session, tmp_path / "new", *built))
        assert numbers(records) == {*known, *built}
        with RecordFile(session, LABEL, str(tmp_path)) as other:
            add(records, 6)
            add(other, 7)
            assert in_file(session, tmp_path) == numbers(records) == numbers(other) == {*known, *built, 6, 7}
        assert records.problem == ""


@replaced
def test_a_new_record_is_noticed_by_a_write_without_a_look(
    session: Session, tmp_path: Path, replace: Callable[[Path, bytes], None]
) -> None:
    tmp_path.chmod(0o755)
    with RecordFile(session, LABEL, str(tmp_path)) as records:
        add(records, 1)
        replace(Path(records.path), content_of(session, tmp_path / "new", 2))
        records.write([records.record.add(pair(3))])
        assert in_file(session, tmp_path) == numbers(records) == {1, 2, 3}


def test_what_one_process_writes_again_is_no_whole_record_for_the_others(session: Session, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with RecordFile(session, LABEL, str(tmp_path)) as records, RecordFile(session, LABEL, str(tmp_path)) as other:
        add(records, 1)
        add(other, 2)
        Path(records.path).unlink()
        records.write([records.record.add(pair(3))])  # it has not read of the second pair
        assert numbers(other) == {1, 2, 3}
        add(other, 4)
        assert in_file(session, tmp_path) == numbers(records) == {1, 2, 3, 4}


@pytest.mark.parametrize("same_inode", [True, False])
def test_a_pair_that_is_gone_does_not_return_with_a_rewritten_record(
    session: Session, tmp_path: Path, same_inode: bool
) -> None:
    tmp_path.chmod(0o755)
    with RecordFile(session, LABEL, str(tmp_path)) as records, RecordFile(session, LABEL, str(tmp_path)) as other:
        add(records, 1, 2)
        path, first = Path(records.path), tmp_path / "first"
        os.link(path, first)
        forgets(other, tmp_path)
        rewrites(other, tmp_path)
        assert not path.samefile(first)
        if same_inode:  # as after two compactions
            first.write_bytes(path.read_bytes())
            first.replace(path)
        assert numbers(records) == {2, 300}


@pytest.mark.parametrize("others", [appends, rewrites, writes_a_new_one, forgets])
def test_a_record_of_an_older_version_is_read_and_continued(session: Session, tmp_path: Path, others: Other) -> None:
    tmp_path.chmod(0o755)
    with RecordFile(session, LABEL, str(tmp_path)) as older:
        add(older, 1, 2)
        path = Path(older.path)
    # It had no line that identifies the record.
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith('["record"')))
    with RecordFile(session, LABEL, str(tmp_path)) as records, RecordFile(session, LABEL, str(tmp_path)) as other:
        assert numbers(records) == numbers(other) == {1, 2}
        others(other, tmp_path)
        add(records, 3)
        expected = {1, 2, 3, 300} - ({1} if others is forgets else set())
        assert in_file(session, tmp_path) == numbers(records) == numbers(other) == expected
        assert '["record"' in path.read_text()


def test_an_older_version_takes_the_file_for_a_record(session: Session, tmp_path: Path) -> None:
    """It compares the whole first line, and skips lines that begin with a word that it does not know."""
    tmp_path.chmod(0o755)
    with RecordFile(session, LABEL, str(tmp_path)) as records:
        add(records, 1)
        first, *facts = Path(records.path).read_text().splitlines()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert json.loads(first) == ["vethlib-pairs", 1, LABEL, boot, [*records.home, session.cookie("")]]
    assert {json.loads(fact)[0] for fact in facts} == {"record", "pair"}


def test_what_a_killed_process_left_beside_it_is_removed_when_it_is_rewritten(tmp_path: Path) -> None:
    left = tmp_path / f".vethlib-{'0f' * 8}"
    left.write_text("half")
    os.utime(left, (1, 1))
    with Session() as session, RecordFile(session, LABEL, str(tmp_path)) as records:
        add(records, 1)
    assert not left.exists()
