"""The directories below /run/vethlib: nobody else can write there, whatever the umask and the first creator are."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.live.children import in_a_child
from vethlib import VethError
from vethlib.agent.process.instance import Instance
from vethlib.agent.process.rundir import UnsafeDirectory, base_directory, open_directory
from vethlib.agent.run.trial import Trial
from vethlib.agent.stores.statusdirectory import StatusDirectory
from vethlib.errors import InvalidValue

OTHER = 12345

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("vethlib.agent.process.rundir.RUN", str(tmp_path / "vethlib"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return tmp_path / "vethlib"


@pytest.fixture(params=[0, 0o077, 0o777])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def opened(*parts: str) -> Path:
    directory = open_directory(*parts)
    try:
        assert not os.get_inheritable(directory)
        return Path(os.readlink(f"/proc/self/fd/{directory}"))
    finally:
        os.close(directory)


@pytest.mark.usefixtures("umask")
def test_modes_do_not_depend_on_the_umask(run: Path) -> None:
    assert opened("one", "status") == run / "one/status"
    assert [mode(run / part) for part in (".", "one", "one/status")] == [0o755] * 3


@pytest.mark.parametrize("loose", [0o777, 0o1777, 0o775, 0o722])
def test_what_others_may_write_is_theirs_no_more(run: Path, loose: int) -> None:
    (run / "one").mkdir(parents=True)
    for path in (run, run / "one"):
        path.chmod(loose)
    opened("one")
    assert [mode(path) for path in (run, run / "one")] == [loose & ~0o022] * 2


@needs_root
@pytest.mark.parametrize("planted", [".", "one", "one/status"])
def test_a_directory_of_another_user_is_refused_by_the_users_number(run: Path, planted: str) -> None:
    (run / "one/status").mkdir(parents=True)
    os.chown(run / planted, OTHER, OTHER)
    with pytest.raises(UnsafeDirectory) as caught:
        opened("one", "status")
    assert (caught.value.uid, caught.value.path) == (OTHER, str(run / planted))
    assert str(OTHER) in str(caught.value)


@needs_root
def test_nobody_is_told_to_remove_what_is_roots(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run.mkdir(mode=0o755)
    monkeypatch.setattr("os.geteuid", lambda: OTHER)
    with pytest.raises(UnsafeDirectory) as caught:
        opened("one")
    assert caught.value.uid == 0
    assert "remove it" not in str(caught.value)


@needs_root
@pytest.mark.parametrize("kind", ["link", "dangling link", "file", "fifo"])
def test_nothing_planted_in_the_place_of_a_directory_is_followed(run: Path, tmp_path: Path, kind: str) -> None:
    run.mkdir()
    target = tmp_path / "target"
    if kind == "link":
        target.mkdir()
    planted = run / "one"
    if "link" in kind:
        planted.symlink_to(target)
    elif kind == "file":
        planted.touch()
    else:
        os.mkfifo(planted)
    os.chown(planted, OTHER, OTHER, follow_symlinks=False)
    with pytest.raises(UnsafeDirectory) as caught:
        opened("one", "status")
    assert caught.value.uid == OTHER
    assert not target.exists() or not list(target.iterdir())


def test_what_cannot_be_made_is_an_error_with_its_number(run: Path) -> None:
    run.parent.chmod(0o555)
    run.symlink_to(run / "loop")
    with pytest.raises(UnsafeDirectory) as caught:
        opened("one")
    assert caught.value.errno != 0


@pytest.mark.parametrize("label", [".", "..", "a/b", "", "\n"])
def test_no_label_leads_out_of_the_directory(run: Path, label: str) -> None:
    with pytest.raises(InvalidValue):
        opened(label)
    assert not run.exists()


def test_an_ordinary_user_has_a_directory_of_his_own(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: OTHER)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/12345")
    assert base_directory() == "/run/user/12345/vethlib"
    if os.getuid() == 0:  # root may have made /run/vethlib his
        run.mkdir()
        os.chown(run, OTHER, OTHER)
        assert base_directory() == str(run)


HELD: dict[str, Callable[[str], Instance | Trial | StatusDirectory]] = {
    "instance": lambda _: Instance("of-a-fork"),
    "trial": lambda _: Trial("of-a-fork"),
    "status directory": lambda path: StatusDirectory("of-a-fork", path),
}


@pytest.mark.parametrize("kind", HELD)
def test_a_forked_child_that_closes_what_it_has_inherited_leaves_it_to_its_parent(
    run: Path, tmp_path: Path, kind: str
) -> None:
    hold, path = HELD[kind], str(tmp_path / "status")
    with closing(hold(path)) as held:
        files = sorted(os.listdir(run))
        assert any("lock" in file for file in files)
        assert in_a_child(held.close) == 0
        assert sorted(os.listdir(run)) == files
        with pytest.raises(VethError):
            hold(path)
    assert [file for file in os.listdir(run) if "lock" in file] == []
    hold(path).close()
