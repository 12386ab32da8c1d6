"""References to paths of any length, which others may have made: each costs little, and hinders no other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.live.applying import interface
from tests.live.configuring import by_file, configured, pair, placed, until
from tests.live.followers import nothing_more, sh, told, watches
from vethlib import Session, ns
from vethlib._trusted import MOST_NAMES
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.follow import Follower, paths
from vethlib.ns.files import answers
from vethlib.ns.files.glance import Glance
from vethlib.ns.opening import entry_at

DEPTH = 400


@pytest.fixture
def follower(home: ns.Netns) -> Iterator[Follower]:
    with Follower() as follower:
        yield follower


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that are looked at."""
    looks: list[str] = []

    def counted(path: str) -> Glance:
        looks.append(path)
        return entry_at(path)

    monkeypatch.setattr(paths, "entry_at", counted)
    return looks


@pytest.fixture
def make_deep() -> Iterator[Callable[..., Path]]:
    """Makes a tree of so many levels; returns the path of the file at its end."""
    made: list[Path] = []

    def make(top: Path, depth: int = DEPTH) -> Path:
        made.append(top)
        top.mkdir()
        at = os.open(top, os.O_PATH)
        for _ in range(depth):
            os.mkdir("d", dir_fd=at)
            inner = os.open("d", os.O_PATH, dir_fd=at)
            os.close(at)
            at = inner
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=at))
        os.close(at)
        return top / "/".join("d" * depth) / "file"

    yield make
    for top in made:
        sh(f"rm -rf {top}")


def nodes(follower: Follower) -> int:
    return len(follower._paths._nodes)


def test_nothing_is_looked_for_below_a_missing_directory(follower: Follower, looks: list[str]) -> None:
    before = nodes(follower)
    follower.follow(["path:/run/q" + "/a" * 2000, "path:/run/q" + "/b" * 2000])
    assert nodes(follower) - before == 2, "/run and /run/q"
    assert len(looks) == 2
    assert watches() == 2
    follower.unfollow(["path:/run/q" + "/a" * 2000])
    assert nodes(follower) - before == 2
    follower.unfollow(["path:/run/q" + "/b" * 2000])
    assert nodes(follower) == before
    assert watches() == 0


def test_a_missing_tree_costs_in_proportion_to_what_appears_of_it(
    follower: Follower, looks: list[str], tmp_path: Path
) -> None:
    refs = [f"path:{tmp_path}/a/{number}" + "/b" * 100 for number in range(50)]
    follower.follow(refs)
    few, most = nodes(follower), len(looks)
    assert most <= few
    (tmp_path / "a").mkdir()
    assert told(follower, 0.1) == set()
    assert nodes(follower) == few + 50
    sh(f"mkdir -p {tmp_path}/a/7/b/b/b")
    assert told(follower, 0.1) == set()
    assert nodes(follower) <= few + 50 + 4
    assert len(looks) <= most + 50 * 8
    sh(f"mkdir -p {refs[7].removeprefix('path:')}")
    assert told(follower) == {refs[7]}
    sh(f"rm -r {tmp_path}/a")
    assert told(follower) == {refs[7]}
    sh(f"mkdir -p {refs[7].removeprefix('path:')} {refs[8].removeprefix('path:')}")
    both = told(follower)
    while both != {refs[7], refs[8]}:
        new = told(follower)
        assert new, f"only {both} are told"
        both |= new
    nothing_more(follower)
    follower.unfollow(refs)
    assert watches() == 0


def test_below_a_link_that_leads_nowhere_nothing_is_looked_for_until_it_leads_somewhere(
    follower: Follower, looks: list[str], tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to("real")
    ref = f"path:{tmp_path}/link" + "/b" * 100
    follower.follow([ref])
    assert not any(path.startswith(f"{tmp_path}/link/") for path in looks)
    sh(f"mkdir -p {tmp_path}/real{'/b' * 100}")
    assert told(follower) == {ref}
    nothing_more(follower)
    (tmp_path / "real").rename(tmp_path / "gone")
    assert told(follower) == {ref}
    sh(f"ln -sfn gone {tmp_path}/link")
    assert told(follower) == {ref}
    follower.unfollow([ref])
    assert watches() == 0


def test_a_link_to_a_deep_tree_is_followed_for_so_many_names_only(
    follower: Follower, looks: list[str], tmp_path: Path, make_deep: Callable[..., Path]
) -> None:
    link, ref = tmp_path / "link", f"path:{tmp_path}/link"
    link.symlink_to(make_deep(tmp_path / "deep"))
    follower.follow([ref])
    assert len(looks) <= MOST_NAMES
    assert watches() <= MOST_NAMES
    assert str(MOST_NAMES) in follower.unnoticed(ref)
    before = len(looks)
    link.unlink()
    link.symlink_to(tmp_path / "deep")
    assert told(follower) == {ref}
    assert len(looks) - before <= 2 * MOST_NAMES
    assert follower.unnoticed(ref) == ""
    link.unlink()
    assert told(follower) == {ref}
    nothing_more(follower)
    assert watches() <= len(tmp_path.parts)


def test_links_below_links_may_lead_through_so_many_names_together(
    follower: Follower, looks: list[str], tmp_path: Path, make_deep: Callable[..., Path]
) -> None:
    """Each of them alone leads through less."""
    levels = MOST_NAMES // 2
    ref = f"path:{tmp_path}/0"
    for number in range(20):
        end = make_deep(tmp_path / f"deep{number}", levels).parent
        (tmp_path / str(number)).symlink_to(end)
        (end / "next").symlink_to(tmp_path / str(number + 1))
        ref += "/next"
    follower.follow([ref])
    assert len(looks) <= 2 * MOST_NAMES
    assert watches() <= 2 * MOST_NAMES
    assert follower.unnoticed(ref)
    follower.unfollow([ref])
    assert watches() == 0


def test_a_question_takes_note_of_so_many_names_only_to_which_links_lead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").mkdir()
    for number in range(30):
        target = f"{number + 1}/" + "x/../" * 200
        (tmp_path / str(number)).symlink_to(target)
    (tmp_path / "30").symlink_to(".")
    noted: list[int] = []
    question = answers._Question(f"{tmp_path}/0", lambda: os.stat(f"{tmp_path}/0"))
    monkeypatch.setattr(question, "about_to_ask", noted.append)
    question._run()
    assert question._answer == os.stat(tmp_path)
    assert len(noted) <= len(tmp_path.parts) + MOST_NAMES


def test_a_pair_is_made_beside_many_whose_links_lead_far(
    session: Session, blue: str, tmp_path: Path, make_deep: Callable[..., Path]
) -> None:
    far = make_deep(tmp_path / "deep")
    with ExitStack() as stack:
        configurator = stack.enter_context(Configurator(session, label="t"))
        sick = []
        for number in range(50):
            link = tmp_path / f"link{number}"
            link.symlink_to(far)
            sick.append(placed(f"s{number}", f"t{number}", by_file(link)))
            sick.append(interface(f"t{number}", f"s{number}"))
        configurator.resync([*pair("a", "b", "", blue), *sick])
        until(configurator, configured(configurator, "a", "b"))
        (status,) = configurator.status("s7")
        assert status.reason
        assert str(MOST_NAMES) in status.warning
