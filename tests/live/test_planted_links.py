"""Files that root writes where another user may also write: no link of that user is followed, no lock awaited."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import Vethctl
from tests.live.applying import EXAMPLES, value
from tests.live.children import staying
from tests.live.other_user import OTHER, As, lock, readable_store
from tests.witness import poll
from vethlib import _locks, _trusted, ns
from vethlib.agent import State
from vethlib.agent.status import Status
from vethlib.agent.stores.agentfile import AgentFile
from vethlib.agent.stores.agentreport import read_report
from vethlib.agent.stores.files.directory import DirectoryStore
from vethlib.agent.stores.files.editing import DirectoryEditor
from vethlib.agent.stores.protocol import StoreError
from vethlib.agent.stores.published import DirectoryStatuses
from vethlib.agent.stores.statuses import StatusFiles

pytestmark = [
    pytest.mark.usefixtures("home"),
    pytest.mark.skipif(os.geteuid() != 0, reason="somebody else is needed"),
]


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Path]:
    """A file of root's, which nothing here may change."""
    file = tmp_path / "secret"
    file.write_text("mine")
    yield file
    assert file.read_text() == "mine"
    assert list(tmp_path.rglob(".vethlib-*")) == []


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory in which the other user may do anything."""
    path = tmp_path / "shared"
    path.mkdir()
    path.chmod(0o777)
    return path


def plant(link: Path, target: Path | str) -> None:
    link.symlink_to(target)
    os.chown(link, OTHER, OTHER, follow_symlinks=False)


def test_put_replaces_a_planted_link(vethctl: Vethctl, shared: Path, secret: Path) -> None:
    plant(shared / "a.json", secret)
    plant(shared / "b.json", shared / "nothing")
    for name in ("a", "b"):
        said = vethctl("put", "-", "--store", f"dir:{shared}", stdin=json.dumps(value(name, "c")))
        assert said.code == 0
        assert stat.S_ISREG((shared / f"{name}.json").lstat().st_mode)
        assert "everybody can write" in said.err
    assert not (shared / "nothing").exists()
    assert vethctl("del", "a", "b", "--store", f"dir:{shared}").code == 0
    assert list(shared.iterdir()) == []


def test_an_edit_of_what_a_planted_link_leads_to_replaces_the_link(shared: Path, secret: Path) -> None:
    theirs = shared / "theirs"
    theirs.write_text(json.dumps([value("a", "b"), value("b", "a")]))
    os.chown(theirs, OTHER, OTHER)
    before = theirs.read_text()
    plant(shared / "all.json", theirs)
    editor = DirectoryEditor(shared)
    editor.delete("a")
    assert theirs.read_text() == before
    assert [one.name for one in editor.stored()] == ["b"]


def test_a_store_behind_a_planted_link_is_not_written(vethctl: Vethctl, shared: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    plant(shared / "store", tmp_path / "real")
    for path in (shared / "store", shared / "store/new"):
        said = vethctl("put", "-", "--store", f"dir:{path}", "--json", stdin=json.dumps(value("a", "b")))
        assert said.code == 2
        assert str(OTHER) in said.error["error"]
    assert list((tmp_path / "real").iterdir()) == []


@pytest.mark.parametrize("mask", [0, 0o077])
def test_modes_of_what_put_makes_do_not_depend_on_the_umask(vethctl: Vethctl, tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        assert vethctl("put", "-", "--store", f"dir:{tmp_path}/new/store", stdin=json.dumps(value("a", "b"))).code == 0
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / path).stat().st_mode) for path in ("new", "new/store", "new/store/a.json")]
    assert modes == [0o755, 0o755, 0o644]


def test_statuses_replace_what_was_planted_in_their_place(shared: Path, secret: Path) -> None:
    for name in ("a.json", ".agent", ".agent.new", ".status"):
        plant(shared / name, secret)
    os.mkfifo(shared / "b.json")
    files = StatusFiles(shared)
    files.publish({name: Status(name, State.CONFIGURED, "", 1.0) for name in ("a", "b")})
    said = AgentFile(shared, "dir:/x")
    said.write()
    for name in ("a.json", "b.json", ".agent"):
        assert stat.S_ISREG((shared / name).lstat().st_mode)
    assert read_report(str(shared)) is not None


@pytest.mark.parametrize("planted", ["run", "run/status"])
def test_statuses_are_not_written_behind_a_planted_link(shared: Path, tmp_path: Path, planted: str) -> None:
    (tmp_path / "real").mkdir()
    (shared / planted).parent.mkdir(exist_ok=True)
    plant(shared / planted, tmp_path / "real")
    with pytest.raises(StoreError) as caught:
        StatusFiles(shared / "run/status").publish({"a": Status("a", State.CONFIGURED, "", 1.0)})
    assert str(OTHER) in str(caught.value)
    assert list((tmp_path / "real").iterdir()) == []


def test_who_reads_statuses_waits_for_nothing_that_was_planted(shared: Path, secret: Path) -> None:
    os.mkfifo(shared / "a.json")
    os.mkfifo(shared / ".agent")
    plant(shared / "b.json", secret)
    plant(shared / "c.json", "/dev/zero")
    published = DirectoryStatuses(str(shared), "planted").read()
    assert published.entries == {}
    assert read_report(str(shared)) is None


@pytest.mark.parametrize("target", ["file", "device"])
def test_a_picture_is_not_written_through_a_planted_link(
    vethctl: Vethctl, shared: Path, secret: Path, target: str
) -> None:
    shared.chmod(0o1777)  # as /tmp is
    plant(shared / "net.svg", secret if target == "file" else "/dev/full")
    assert vethctl("graph", str(EXAMPLES / "pair"), "--offline", "-o", str(shared / "net.svg")).code == 0
    assert stat.S_ISREG((shared / "net.svg").lstat().st_mode)
    plant(shared / "away", secret.parent)
    assert vethctl("graph", str(EXAMPLES / "pair"), "--offline", "-o", str(shared / "away/net.svg")).code == 2
    assert not (secret.parent / "net.svg").exists()
    os.mkfifo(shared / "pipe.svg")
    os.chown(shared / "pipe.svg", OTHER, OTHER)
    assert vethctl("graph", str(EXAMPLES / "pair"), "--offline", "-o", str(shared / "pipe.svg")).code == 0


def test_own_links_are_followed_and_a_pipe_is_written_to(vethctl: Vethctl, tmp_path: Path) -> None:
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "way").symlink_to("deep")
    (tmp_path / "net.svg").symlink_to("way/er/../er/real.svg")
    assert vethctl("graph", str(EXAMPLES / "pair"), "--offline", "-o", str(tmp_path / "net.svg")).code == 0
    assert (tmp_path / "net.svg").is_symlink()
    assert (tmp_path / "deep/er/real.svg").read_text().endswith("</svg>\n")
    command = [
        sys.executable,
        "-m",
        "vethlib",
        "graph",
        str(EXAMPLES / "pair"),
        "--offline",
        "--svg",
        "-o",
        "/dev/stdout",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("</svg>\n")


def test_a_path_is_walked_as_the_kernel_walks_it(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "to_a").symlink_to("a")
    (tmp_path / "a/b/up").symlink_to("../../to_a/./b//")
    (tmp_path / "whole").symlink_to(tmp_path / "a/b/up")
    (tmp_path / "loop").symlink_to("loop")
    for path in ("a", "to_a/b", "whole", "whole/up/up/..", ".", "a/b/../../to_a"):
        directory = _trusted.open_directory(str(tmp_path / path))
        assert os.path.samestat(os.fstat(directory), (tmp_path / path).stat())
        os.close(directory)
    for path in ("none", "loop", "a/none/b"):
        with pytest.raises(OSError, match=r"."):
            _trusted.open_directory(str(tmp_path / path))


def test_the_agent_says_who_may_write_to_its_store(shared: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = DirectoryStore(shared)
    store.read()
    store.read()
    assert len(caplog.records) == 1
    store.close()


@pytest.mark.parametrize("how", [fcntl.LOCK_EX, fcntl.LOCK_SH])
def test_a_lock_of_one_who_may_only_read_the_store_keeps_nobody(as_other: As, tmp_path: Path, how: int) -> None:
    store = readable_store(tmp_path)
    pid = as_other(lock(store, how))
    directory = os.open(store, os.O_RDONLY)
    assert _locks.holders(directory) == [(pid, OTHER)]
    os.close(directory)
    began = time.monotonic()
    DirectoryEditor(store).put_text({"a": json.dumps(value("a", "b"))})
    assert time.monotonic() - began < 5


def test_a_lock_that_a_set_user_id_program_inherits_is_still_of_who_started_it(tmp_path: Path) -> None:
    def set_user_id() -> object:
        os.setresuid(OTHER, 0, 0)  # as after execve(2)
        return lock(tmp_path)()

    with staying(set_user_id) as pid:
        directory = os.open(tmp_path, os.O_RDONLY)
        began = time.monotonic()
        assert _locks.lock(directory, 10.0, lambda uid: uid in (0, os.geteuid()))
        assert time.monotonic() - began < 5
        assert _locks.holders(directory) == [(pid, OTHER)]
        os.close(directory)


def test_a_lock_of_one_who_may_edit_the_store_is_waited_for_and_then_named(
    as_other: As, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vethlib.agent.stores.files.editing._PATIENCE", 0.5)
    for path in shared.parents[:-2]:
        path.chmod(path.stat().st_mode | 0o055)
    pid = as_other(lock(shared))
    with pytest.raises(StoreError) as caught:
        DirectoryEditor(shared).put_text({"a": json.dumps(value("a", "b"))})
    assert str(pid) in str(caught.value)
    assert str(OTHER) in str(caught.value)
    editing = threading.Thread(target=DirectoryEditor(shared).put_text, args=({"a": json.dumps(value("a", "b"))},))
    editing.start()
    os.kill(pid, signal.SIGKILL)
    editing.join()
    assert (shared / "a.json").exists()


def test_a_lock_on_the_directory_of_namespaces_keeps_none_from_being_made(as_other: As) -> None:
    ns.Netns.create("first").close()
    as_other(lock(Path("/run/netns")))
    began = time.monotonic()
    ns.Netns.create("second").close()
    assert time.monotonic() - began < 4
    assert poll(lambda: set(ns.names()) == {"first", "second"})
