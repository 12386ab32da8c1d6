"""Symbolic links of users that a user namespace does not map, such as root outside."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.children import in_a_child
from tests.live.other_user import OTHER, become_other
from vethlib import _trusted
from vethlib.ns.syscalls import CLONE_NEWUSER, unshare

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="somebody else is needed")
TREE = Path("/mnt")
LINKS = {
    "lnk": "real",
    "absolute": "/mnt/real",
    "again": "lnk",
    "open/lnk": "../real",
    "of-group/lnk": "../real",
    "open/of-root/lnk": "../../real",
    "to-open": "/mnt/open/lnk",
    "back": "/mnt/open/../lnk",
}


@pytest.fixture(autouse=True)
def _tree() -> Iterator[None]:
    """A file system with links of root, and directories in which others can create some, too."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", TREE], check=True)
    try:
        for name, mode in (("real", 0o755), ("open", 0o1777), ("of-group", 0o775), ("open/of-root", 0o755)):
            (TREE / name).mkdir()
            (TREE / name).chmod(mode)
        os.chown(TREE / "of-group", 0, 54321)
        (TREE / "real" / "own").mkdir()
        os.chown(TREE / "real" / "own", OTHER, OTHER)
        for name, target in LINKS.items():
            (TREE / name).symlink_to(target)
        yield
    finally:
        subprocess.run(["umount", TREE], check=True)


def in_a_user_namespace(function: Callable[[], object]) -> int:
    """The errno with which a function fails as an ordinary user in a user namespace that maps nobody else, or 0."""

    def inside() -> None:
        become_other()
        ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE: files of /proc/self belong to the user again
        unshare(CLONE_NEWUSER)
        for file, line in (("setgroups", "deny"), ("uid_map", f"0 {OTHER} 1"), ("gid_map", f"0 {OTHER} 1")):
            Path(f"/proc/self/{file}").write_text(line)
        try:
            function()
        except OSError as error:
            os._exit(error.errno or 1)

    return in_a_child(inside)


def strangers(path: str) -> None:
    assert _trusted.strangers_on_the_way(path)[1] == set()


def write(path: str) -> None:
    place = _trusted.locate(path)
    os.close(os.open(place.name, os.O_WRONLY | os.O_CREAT, dir_fd=place.directory.fileno()))


@pytest.mark.parametrize("link", ["lnk", "absolute", "again", "again/../lnk"])
def test_links_that_only_their_owner_could_create_are_followed(link: str) -> None:
    assert in_a_user_namespace(lambda: _trusted.open_directory(f"/mnt/{link}/own")) == 0
    assert in_a_user_namespace(lambda: write(f"/mnt/{link}/own/file")) == 0
    assert in_a_user_namespace(lambda: _trusted.open_directory(f"/mnt/{link}/own/new", make=True)) == 0
    assert in_a_user_namespace(lambda: strangers(f"/mnt/{link}/own")) == 0
    assert (TREE / "real" / "own" / "file").stat().st_uid == OTHER


@pytest.mark.parametrize("link", ["open/lnk", "of-group/lnk", "open/of-root/lnk", "to-open", "back"])
def test_links_below_directories_of_which_others_write_are_not_followed(link: str) -> None:
    assert in_a_user_namespace(lambda: _trusted.open_directory(f"/mnt/{link}/own")) == errno.ELOOP
    assert in_a_user_namespace(lambda: write(f"/mnt/{link}/own/file")) == errno.ELOOP
    assert in_a_user_namespace(lambda: strangers(f"/mnt/{link}/own")) == 1
    assert list((TREE / "real" / "own").iterdir()) == []


def test_a_relative_path_may_begin_anywhere() -> None:
    def relative() -> None:
        os.chdir(TREE)
        _trusted.open_directory("lnk/own")

    assert in_a_user_namespace(relative) == errno.ELOOP


def test_outside_nobody_is_a_user_like_any_other() -> None:
    os.chown(TREE / "lnk", 65534, 65534, follow_symlinks=False)
    with pytest.raises(OSError, match="65534") as caught:
        _trusted.open_directory("/mnt/lnk/own")
    assert caught.value.errno == errno.ELOOP
    assert _trusted.strangers_on_the_way("/mnt/lnk/own")[1] == {65534}
