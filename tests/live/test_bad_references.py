"""A reference that leads to no namespace, nowhere, or to a file system that does not answer affects only itself."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.commands import Vethctl
from tests.live.agents import started
from tests.live.answers import refuse_opening
from tests.live.applying import interface, value
from tests.live.bad_references import BAD, bad, within
from tests.live.configuring import by_file, configured, pair, placed, until
from tests.live.silent import silent_fuse
from tests.witness import ip, names, poll, seen
from vethlib import NetlinkError, Netns, Session
from vethlib.agent import State
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.follow import Follower
from vethlib.ifindex import IfIndexCache

pytestmark = pytest.mark.usefixtures("little_patience")

NETNS_DIR = Path("/run/netns")
OF_ANOTHER = "into_what_is_another_user_s"
LONGEST = 10.0  # seconds that a look may take, on a busy machine


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    (tmp_path / "some").mkdir()
    return tmp_path / "some"


# --- what keeps a host as it is wanted


@pytest.mark.parametrize(
    ("where", "kind"),
    [("file", kind) for kind in BAD]
    + [("named", kind) for kind in ("loop", "directory", "fifo_with_a_writer", "a_dead_mount")],
)
def test_a_configurator_builds_heals_and_deletes_all_others(
    where: str, kind: str, session: Session, blue: str, red: str, elsewhere: Path
) -> None:
    path = NETNS_DIR / "bad" if where == "named" else elsewhere / "bad"
    sick = interface("s2", "s1", "bad") if where == "named" else placed("s2", "s1", by_file(path))
    with bad(kind, path), Configurator(session, label="t") as configurator:
        configurator.resync([*pair("a", "b", blue, red), *pair("c", "d", "", blue), interface("s1", "s2"), sick])
        until(configurator, configured(configurator, *"abcd"))
        for name in ("s1", "s2"):
            (status,) = configurator.status(name)
            assert status.state in (State.PENDING, State.RETRYING)
            assert str(path) in status.reason or "process" in status.reason
        ip("link", "del", "dev", "a", netns=blue)
        until(configurator, lambda: "a" in names(blue) and configured(configurator, *"abcd")())
        configurator.delete("c")
        configurator.delete("d")
        until(configurator, lambda: "c" not in names())
        configurator.close()
        # The next one knows of none of it.
        with Configurator(session, label="t") as again:
            again.resync([*pair("c", "d", "", blue), interface("s1", "s2"), sick])
            until(again, lambda: names(blue) == {"d"} and configured(again, *"cd")())


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENODEV, errno.ETXTBSY, errno.EACCES, errno.ENOMEM])
def test_whatever_opening_one_namespace_says_its_pair_stays_and_others_go_on(
    session: Session, blue: str, red: str, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with Configurator(session, label="t") as configurator:
        configurator.resync([*pair("a", "b", "", blue), *pair("c", "d", "", red)])
        until(configurator, configured(configurator, *"abcd"))
        index = seen("a")["ifindex"]
        with monkeypatch.context() as patch:
            refuse_opening(patch, blue, number)
            configurator.resync()
            ip("link", "del", "dev", "c")
            until(configurator, lambda: "c" in names() and configured(configurator, "c", "d")())
            (status,) = configurator.status("b")
            assert f"/run/netns/{blue}" in status.reason + status.warning
        until(configurator, configured(configurator, "a", "b"))
        assert seen("a")["ifindex"] == index


def test_a_pair_stays_while_the_file_system_that_leads_to_it_is_silent(
    session: Session, blue: str, red: str, tmp_path: Path
) -> None:
    way = tmp_path / "way"
    way.symlink_to(NETNS_DIR / blue)
    with Configurator(session, label="t") as configurator:
        configurator.resync([interface("a", "b"), placed("b", "a", by_file(way)), *pair("c", "d", "", red)])
        until(configurator, configured(configurator, *"abcd"))
        index = seen("b", blue)["ifindex"]
        with silent_fuse(tmp_path / "silent"):
            way.unlink()
            way.symlink_to(tmp_path / "silent" / "x")
            until(configurator, lambda: "answer" in str(configurator.status("b")))
            configurator.resync()
            ip("link", "del", "dev", "c")
            until(configurator, lambda: "c" in names() and configured(configurator, "c", "d")())
            assert seen("b", blue)["ifindex"] == index
        way.unlink()
        way.symlink_to(NETNS_DIR / blue)
        until(configurator, lambda: not configurator.status("b")[0].warning)
        assert configured(configurator, *"abcd")()
        assert seen("b", blue)["ifindex"] == index


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.EPERM, errno.EMFILE])
def test_a_namespace_that_cannot_be_watched_is_said_so_of_and_tried_again(
    session: Session, blue: str, red: str, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    watch_all = IfIndexCache.watch_all

    def refuse(self: IfIndexCache, refs: Iterable[str]) -> None:
        refs = list(refs)
        if f"netns:{blue}" in refs:
            raise NetlinkError("refused", errno=number)
        watch_all(self, refs)

    with Configurator(session, label="t") as configurator:
        with monkeypatch.context() as patch:
            patch.setattr(IfIndexCache, "watch_all", refuse)
            configurator.resync([*pair("a", "b", "", blue), *pair("c", "d", "", red)])
            until(configurator, configured(configurator, *"abcd"))
            assert "refused" in configurator.status("b")[0].warning
            ip("link", "del", "dev", "c")
            until(configurator, lambda: "c" in names() and configured(configurator, "c", "d")())
        until(configurator, lambda: not configurator.status("b")[0].warning)
        ip("link", "set", "dev", "b", "down", netns=blue)
        until(configurator, lambda: "UP" in seen("b", blue)["flags"])


def test_what_follows_files_goes_on_beside_one_that_is_silent(home: Netns, tmp_path: Path) -> None:
    good, sick = tmp_path / "good", tmp_path / "sick"
    with silent_fuse(tmp_path / "silent"):
        sick.symlink_to(tmp_path / "silent" / "x" / "y")
        with Follower() as follower:
            within(LONGEST, lambda: follower.follow([f"path:{sick}", f"path:{good}", f"path:{tmp_path}/silent/z"]))
            within(LONGEST, follower.changed)
            good.touch()
            assert poll(lambda: f"path:{good}" in follower.changed())
            sick.unlink()
            assert poll(lambda: f"path:{sick}" in follower.changed())


# --- an agent of its own


def test_an_agent_starts_works_and_ends_beside_a_file_system_that_is_silent(
    home: Netns, blue: str, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    store.mkdir()

    silent = {"namespace": {"type": "FILE_REF_NS", "filepath": str(tmp_path / "silent" / "x")}}
    for one in (value("s1", "s2"), value("s2", "s1") | silent, value("a", "b"), value("b", "a", blue)):
        (store / f"{one['name']}.json").write_text(json.dumps(one))
    with silent_fuse(tmp_path / "silent"):
        for _ in range(2):
            agent = started(store)
            try:
                assert poll(lambda: "a" in names() and names(blue) == {"b"})
                ip("link", "del", "dev", "a")
                assert poll(lambda: "a" in names())
            finally:
                os.kill(agent, signal.SIGTERM)
                began = time.monotonic()
                _, status = os.waitpid(agent, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            assert time.monotonic() - began < 20


# --- the command line


@pytest.mark.parametrize("kind", BAD)
def test_commands_go_on_past_an_entry_that_nobody_configured(
    kind: str, session: Session, blue: str, red: str, tmp_path: Path, vethctl: Vethctl
) -> None:
    wanted = tmp_path / "wanted.json"
    wanted.write_text(json.dumps([value("a", "b", blue), value("b", "a", red)]))
    with bad(kind, NETNS_DIR / "bad"):
        assert vethctl("diff", str(wanted)).code == 1
        assert vethctl("apply", str(wanted)).code == 0
        said = vethctl("--json", "show")
        assert said.code == 0
        # What leads nowhere is no part of the host; of what may be there it is said that it is not shown.
        unseen = kind in ("loop", "too_long", "into_a_dead_mount", "into_a_mount_that_was_given_up", OF_ANOTHER)
        assert bool(said.err) == unseen
        assert {(one["netns"], one["name"]) for one in said.json} == {("netns:blue", "a"), ("netns:red", "b")}
        graph = vethctl("--json", "graph")
        assert graph.code == 0
        assert len(graph.json["edges"]) == 1
        assert "bad" in vethctl("netns", "list").out
        assert vethctl("netns", "add", "bad").code == 2
        stats = vethctl("stats")
        assert (stats.code, bool(stats.err)) == (0, unseen)
        wanted.write_text("[]")
        assert vethctl("apply", "--prune", str(wanted)).code == 0
        assert names(blue) == names(red) == set()


@pytest.mark.parametrize("kind", BAD)
def test_a_reference_of_the_files_that_leads_nowhere_leaves_the_others_to_be_applied(
    kind: str, session: Session, blue: str, red: str, elsewhere: Path, vethctl: Vethctl
) -> None:
    namespace = {"type": "FILE_REF_NS", "filepath": str(elsewhere / "bad")}
    sick = [value("s1", "s2"), value("s2", "s1") | {"namespace": namespace}]
    wanted = elsewhere.parent / "wanted.json"
    wanted.write_text(json.dumps([*sick, value("a", "b", blue), value("b", "a", red)]))
    with bad(kind, elsewhere / "bad"):
        assert vethctl("diff", str(wanted)).code == 1
        applied = vethctl("apply", str(wanted))
        assert applied.code == 3
        assert "s2" in applied.err
        assert (names(), names(blue), names(red)) == (set(), {"a"}, {"b"})
