"""A root file system without /run, like that of a small container."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.children import in_a_child
from vethlib import NetnsNotFound, ns
from vethlib.ns.files import glance
from vethlib.ns.opening import entry_at, unhurried
from vethlib.ns.syscalls import CLONE_NEWNS, MS_BIND, MS_PRIVATE, MS_REC, mount, unshare

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its root directory")


def without_run(root: Path, function: Callable[[], None]) -> None:
    """Call in a forked child whose root directory has everything but /run."""

    def run() -> None:
        unshare(CLONE_NEWNS)
        mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
        mount(b"tmpfs", bytes(root), b"tmpfs", 0, None)
        for entry in os.listdir("/"):
            if os.path.islink(f"/{entry}"):
                (root / entry).symlink_to(os.readlink(f"/{entry}"))
            elif os.path.isdir(f"/{entry}") and entry != "run":
                (root / entry).mkdir()
                mount(f"/{entry}".encode(), bytes(root / entry), None, MS_BIND, None)
        os.chroot(root)
        os.chdir("/")
        assert not os.path.lexists("/run")
        function()

    assert in_a_child(run) == 0


@pytest.mark.parametrize("cached", [True, False], ids=["in memory", "not in memory"])
def test_a_namespace_at_a_path_is_opened(home: ns.Netns, tmp_path: Path, cached: bool) -> None:
    def look() -> None:
        if not cached:  # as on a kernel before 5.12, or with a seccomp filter that refuses openat2
            glance._can_open_cached = False
        os.mkdir("/var-ns")
        Path("/var-ns/file").touch()
        mount(b"/proc/thread-self/ns/net", b"/var-ns/file", None, MS_BIND, None)
        os.symlink("file", "/var-ns/link")
        os.symlink("nowhere", "/var-ns/dangling")
        for path in ("/var-ns/file", "/var-ns/link"):
            with ns.open_owned(f"path:{path}") as opened:
                assert ns.identity(opened.fileno())[1] == os.stat("/proc/thread-self/ns/net").st_ino
        for path in ("/var-ns/dangling", "/var-ns/missing"):
            with pytest.raises(NetnsNotFound):
                ns.open_fd(f"path:{path}")
        assert entry_at("/var-ns/link").link == "file"
        assert set(unhurried("/var-ns", os.listdir)) == {"file", "link", "dangling"}
        assert ns.names() == []

    without_run(tmp_path, look)
