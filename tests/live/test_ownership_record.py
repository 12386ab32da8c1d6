"""Built pairs are remembered: the record of pairs, its file, and agents that were killed before they wrote to it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.live.applying import LABEL
from tests.live.configuring import configured, pair, put, settle, until
from tests.live.rewriting import rewrite
from tests.mounts import unmount_all
from tests.witness import host_state, ip, names, seen
from vethlib import BatchError, LinkNotFound, Session, Veth
from vethlib.agent import State, group_of
from vethlib.agent.host.recordfile import RecordFile
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.ns.syscalls import mount
from vethlib.session.write.creating.create import Planned

GROUP = str(group_of(LABEL))


@pytest.fixture
def green(make_netns: Callable[..., None]) -> str:
    make_netns("green")
    return "green"


def test_what_one_process_has_built_another_one_of_the_label_knows(session: Session, blue: str, red: str) -> None:
    with Configurator(session) as first, Configurator(session) as second:
        first.resync([])
        second.resync([])
        settle(first)
        settle(second)
        first.resync(pair("a", "b", "blue", "red"))
        settle(first)
        rewrite("both")
        second.resync(pair("a", "b", "blue", "red"))
        settle(second)
        assert configured(second, "a", "b")()
        second.resync([])
        settle(second)
        assert (names("blue"), names("red")) == (set(), set())


def test_without_a_directory_it_works_by_what_it_remembers(session: Session, blue: str, red: str) -> None:
    with Configurator(session, records="") as configurator:
        assert configurator.pairs.path == ""
        configurator.resync(pair("a", "b", "blue", "red"))
        settle(configurator)
        rewrite("both")
        configurator.resync([])
        settle(configurator)
        assert (names("blue"), names("red")) == (set(), set())


def test_a_record_that_was_removed_is_written_again(session: Session, blue: str, red: str) -> None:
    with Configurator(session) as first:
        first.resync(pair("a", "b", "blue", "red"))
        settle(first)
        os.unlink(first.pairs.path)
        put(first, *pair("c", "d", "blue", "red"))
        settle(first)
        assert first.pairs.problem == ""
    rewrite("both")
    with Configurator(session) as second:
        second.resync([])
        settle(second)
        assert (names("blue"), names("red")) == (set(), set())


@pytest.fixture
def small(session: Session, tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system of 64 KiB."""
    mount(b"tmpfs", os.fsencode(tmp_path), b"tmpfs", 0, b"size=64k,mode=755")
    try:
        yield tmp_path
    finally:
        unmount_all(tmp_path)


@contextmanager
def full(directory: Path) -> Iterator[None]:
    """There is no room for another page while pairs are built."""
    filler = directory / "filler"
    with open(filler, "wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(4096))
    yield
    filler.unlink()


@contextmanager
def taken(directory: Path) -> Iterator[None]:
    """A directory has the name of the lock while pairs are built."""
    lock = directory / f"pairs.{os.stat('/proc/thread-self/ns/net').st_ino}.lock"
    lock.mkdir()
    yield
    lock.rmdir()


@pytest.mark.parametrize("refused", [full, taken])
@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_record_that_was_refused_is_written_while_nothing_happens_or_at_the_end(
    session: Session,
    blue: str,
    red: str,
    small: Path,
    caplog: pytest.LogCaptureFixture,
    refused: Callable[[Path], AbstractContextManager[None]],
    at_the_end: bool,
) -> None:
    with Configurator(session, records=str(small)) as first:
        with refused(small):
            first.resync(pair("a", "b", "blue", "red"))
            settle(first)
            assert configured(first, "a", "b")()
            assert first.pairs.problem != ""
        if not at_the_end:
            until(first, lambda: first.pairs.problem == "")
            assert first.pairs.path in caplog.messages[-1]
    rewrite("both")
    with Configurator(session, records=str(small)) as second:
        second.resync([])
        settle(second)
        assert (names("blue"), names("red")) == (set(), set())


def test_a_record_that_was_removed_from_a_quiet_agent_is_written_at_its_end(
    session: Session, blue: str, red: str
) -> None:
    with Configurator(session) as first:
        first.resync(pair("a", "b", "blue", "red"))
        settle(first)
        shutil.rmtree(Path(first.pairs.path).parent)
    rewrite("both")
    with Configurator(session) as second:
        second.resync([])
        settle(second)
        assert (names("blue"), names("red")) == (set(), set())


@pytest.mark.parametrize("text", ["", "not a record\n", '["vethlib-pairs",99]\n', '["vethlib-pairs"', "[[[[\n\0\xff"])
def test_a_record_that_cannot_be_understood_is_none(session: Session, blue: str, red: str, text: str) -> None:
    """As after an upgrade from a version that had none: marks at both ends decide, in namespaces of interfaces."""
    with Configurator(session) as first:
        first.resync(pair("a", "b", "blue", "red"))
        settle(first)
        path = first.pairs.path
    for number, interfaces in enumerate([[], pair("c", "d", "blue")]):
        Path(path).write_text(text)
        with Configurator(session) as second:
            second.resync(interfaces)
            settle(second)
            assert (names("blue"), names("red")) == [({"a"}, {"b"}), ({"c"}, set())][number]


def test_a_record_that_others_may_have_written_is_not_believed(session: Session, blue: str, red: str) -> None:
    with Configurator(session) as first:
        first.resync(pair("a", "b", "blue", "red"))
        settle(first)
        path = first.pairs.path
    os.chown(path, 12345, 12345)
    with Configurator(session) as second:
        second.resync(pair("a", "b", "blue", "red"))
        settle(second)
        assert configured(second, "a", "b")()
        assert second.pairs.problem == ""
        assert os.stat(path).st_uid == os.geteuid()


def cut_short_between(session: Session, a: str, b: str) -> str:
    """Leave an intent for a–b in these namespaces, of an agent that was killed; return the path of the record."""
    with Configurator(session) as first:
        first.resync(pair("a", "b", a, b))
        settle(first)
        path = first.pairs.path
    lines = Path(path).read_text().splitlines(keepends=True)
    ip("link", "del", "dev", "b", netns=b)
    Path(path).write_text("".join(line for line in lines if not line.startswith('["pair"')))
    assert any(line.startswith('["intent"') for line in lines)
    return path


# Where the one end is (the other one is in red), and which of them a tenant moves to green.
moved_ends = pytest.mark.parametrize(("at", "moved"), [(at, moved) for at in ("", "blue") for moved in ("a", "b")])


@pytest.fixture
def cut_short(session: Session, blue: str, red: str) -> str:
    return cut_short_between(session, "blue", "red")


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize(("at", "touched"), [("blue", None), ("blue", "a"), ("blue", "b"), ("", None), ("", "b")])
def test_a_pair_that_was_created_and_not_recorded_is_ours(
    session: Session, blue: str, red: str, wanted: bool, at: str, touched: str | None
) -> None:
    cut_short_between(session, at, "red")
    made = ["group", GROUP, "type", "veth", "peer", "name", "b", "group", GROUP, "netns", "red"]
    ip("link", "add", "name", "a", *made, netns=at)
    if touched:
        ip("link", "set", "dev", touched, "alias", "mine", netns=at if touched == "a" else "red")
    index = seen("a", at)["ifindex"]
    with Configurator(session) as second:
        second.resync(pair("a", "b", at, "red") if wanted else [])
        settle(second)
        if wanted:
            assert configured(second, "a", "b")()
            assert seen("a", at)["ifindex"] == index
        else:
            assert "a" not in names(at)
            assert names("red") == set()


@pytest.mark.parametrize("alias", [True, False])
@moved_ends
def test_a_pair_that_was_moved_before_it_was_recorded_is_ours(
    session: Session, blue: str, red: str, green: str, at: str, moved: str, alias: bool
) -> None:
    cut_short_between(session, at, "red")
    places = {"a": at, "b": "red"}
    peer = ["peer", "name", "b", "group", GROUP, "netns", "red"]
    ip("link", "add", "name", "a", "group", GROUP, "type", "veth", *peer, netns=at)
    for name, netns in places.items() if alias else ():
        ip("link", "set", "dev", name, "alias", f"vethlib label={LABEL} name={name}", netns=netns)
    ip("link", "set", "dev", moved, "netns", "green", netns=places[moved])
    with Configurator(session) as second:
        second.resync([])
        settle(second)
        assert (names("blue"), names("red"), names("green")) == (set(), set(), set())
        assert "a" not in names()


@moved_ends
def test_a_pair_that_is_moved_while_it_is_being_deleted_goes_all_the_same(
    session: Session,
    blue: str,
    red: str,
    green: str,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
    moved: str,
) -> None:
    delete_many = session.delete_many

    def move_and_delete(*args: Any, **kwargs: Any) -> object:
        if (moved, places[moved]) in left:
            left.clear()
            ip("link", "set", "dev", moved, "netns", "green", netns=places[moved])
        return delete_many(*args, **kwargs)

    places = {"a": at, "b": "red"}
    left = set(places.items())
    with Configurator(session) as configurator:
        configurator.resync(pair("a", "b", at, "red"))
        settle(configurator)
        monkeypatch.setattr(session, "delete_many", move_and_delete)
        configurator.delete("a")
        configurator.delete("b")
        settle(configurator)
        assert left == set()
        assert (names("blue"), names("red"), names("green")) == (set(), set(), set())
        assert "a" not in names()


@pytest.mark.parametrize("at", ["", "blue"])
def test_a_pair_of_which_an_end_is_moved_while_it_is_being_created_is_replaced(
    session: Session,
    blue: str,
    red: str,
    green: str,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
) -> None:
    create_many = session.create_many

    def create_by_half(veths: list[Veth], **kwargs: Any) -> object:
        monkeypatch.setattr(session, "create_many", create_many)
        kwargs["before"]([Planned(veths[0], session.identity(at), session.identity("red"))])
        peer = ["peer", "name", "b", "group", GROUP, "netns", "red"]
        ip("link", "add", "name", "a", "group", GROUP, "type", "veth", *peer, netns=at)
        ip("link", "set", "dev", "b", "alias", f"vethlib label={LABEL} name=b", netns="red")
        ip("link", "set", "dev", "a", "netns", "green", netns=at)
        error = LinkNotFound("set a: no such link")
        error.item = veths[0]
        raise BatchError("1 of 1 pairs could not be created", [error])

    monkeypatch.setattr(session, "create_many", create_by_half)
    with Configurator(session) as configurator:
        configurator.resync(pair("a", "b", at, "red"))
        until(configurator, configured(configurator, "a", "b"))
        assert (names("red"), names("green")) == ({"b"}, set())
        assert "a" in names(at)


def test_a_pair_of_others_of_the_same_names_is_not_taken_for_it(session: Session, cut_short: str) -> None:
    ip("link", "add", "name", "a", "netns", "blue", "type", "veth", "peer", "name", "b", "netns", "red")
    before = host_state()
    with Configurator(session) as second:
        second.resync([])
        settle(second)
        second.resync(pair("a", "b", "blue", "red"))
        settle(second)
        assert host_state() == before
        assert [one.state for one in second.status()] == [State.FAILED, State.FAILED]


def test_a_torn_last_line_costs_nothing_else(session: Session, blue: str, red: str) -> None:
    with Configurator(session) as first:
        first.resync(pair("a", "b", "blue", "red"))
        settle(first)
        with open(first.pairs.path, "a") as file:
            file.write('["pair",["c",[4,')
        put(first, *pair("e", "f", "blue", "red"))
        settle(first)
    with RecordFile(session, LABEL) as records:
        assert {end.name for known in records.record for end in known.ends} == {"a", "b", "e", "f"}
