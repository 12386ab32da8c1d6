"""Names in /run/netns are shared with the ip program."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import pytest

from tests.capabilities import dropped
from tests.interrupts import boundaries, distinct, interrupted
from tests.refusing import raises
from tests.witness import open_fds
from vethlib import ns
from vethlib.errors import InvalidValue, NetlinkError, NetnsExists, NetnsNotFound, NotPermitted
from vethlib.ns import named
from vethlib.ns.syscalls import MNT_DETACH, MS_BIND, mount, umount2

DIRECTORY = "/run/netns"


def ip(*args: str) -> str:
    return subprocess.run(["ip", *args], check=True, capture_output=True, text=True).stdout


def listed() -> list[str]:
    return sorted(line.split()[0] for line in ip("netns", "list").splitlines())


def mounts(place: str) -> list[str]:
    """The lines of mountinfo for mounts on exactly `place`, without those of the host, which our own /run hides."""
    lines = [line.split() for line in Path("/proc/thread-self/mountinfo").read_text().splitlines()]
    parent = {fields[0]: fields[1] for fields in lines}
    inside = place.startswith("/run/")
    run = next((fields[0] for fields in reversed(lines) if inside and fields[4] == "/run"), None)

    def ours(mount: str | None) -> bool:
        while mount is not None and mount != run:
            mount = parent.get(mount)
        return mount == run

    return [" ".join(fields) for fields in lines if fields[4] == place and (run is None or ours(fields[0]))]


def unmount_everything() -> None:
    for name in os.listdir(DIRECTORY) if os.path.isdir(DIRECTORY) else ():
        subprocess.run(["ip", "netns", "del", name], check=True)
    while mounts(DIRECTORY):
        umount2(DIRECTORY.encode(), MNT_DETACH)


@pytest.fixture(autouse=True)
def _nothing_there() -> Iterator[None]:
    unmount_everything()
    yield
    unmount_everything()


def create(name: str) -> None:
    ns.Netns.create(name).close()


def test_what_we_create_ip_sees() -> None:
    create("blue")
    create("netns:red")
    assert listed() == ["blue", "red"] == ns.names()
    assert "lo" in ip("-n", "blue", "-br", "link")
    assert len(mounts(f"{DIRECTORY}/blue")) == 1
    assert " - nsfs " in mounts(f"{DIRECTORY}/blue")[0]


def test_what_we_create_ip_can_enter_and_remove() -> None:
    create("blue")
    inside = ip("netns", "exec", "blue", "stat", "-Lc", "%i", "/proc/self/ns/net")
    assert int(inside) == os.stat(f"{DIRECTORY}/blue").st_ino
    ip("netns", "del", "blue")
    assert ns.names() == []


def test_what_ip_creates_we_open_and_remove() -> None:
    ip("netns", "add", "blue")
    with ns.Netns.open("blue") as blue:
        assert blue.identity[1] == os.stat(f"{DIRECTORY}/blue").st_ino
    ns.remove("blue")
    assert listed() == []
    assert mounts(f"{DIRECTORY}/blue") == []


def test_a_created_namespace_is_not_the_callers() -> None:
    here = os.stat("/proc/thread-self/ns/net").st_ino
    create("blue")
    assert os.stat("/proc/thread-self/ns/net").st_ino == here != os.stat(f"{DIRECTORY}/blue").st_ino


def test_the_directory_is_one_shared_mount_however_often_one_creates() -> None:
    create("blue")
    ip("netns", "add", "red")
    create("green")
    (line,) = mounts(DIRECTORY)
    assert " shared:" in line


def test_the_directory_is_made_when_it_is_missing() -> None:
    os.rmdir(DIRECTORY)
    assert ns.names() == []
    create("blue")
    assert os.stat(DIRECTORY).st_mode & 0o777 == 0o755 & ~_umask()


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_racing_creators_make_exactly_one_mount() -> None:
    code = (
        "import sys; from vethlib import ns; print(flush=True); sys.stdin.read(); ns.Netns.create(sys.argv[1]).close()"
    )
    ours = [[sys.executable, "-c", code, f"ours{number}"] for number in range(4)]
    ips = [["sh", "-c", f"echo; read line; ip netns add ip{number}"] for number in range(4)]
    for _ in range(3):
        processes = [subprocess.Popen(c, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for c in (*ours, *ips)]
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in processes:
            assert process.wait() == 0
            assert process.stdout is not None
            process.stdout.close()
        assert len(mounts(DIRECTORY)) == 1
        assert len(listed()) == 8
        assert all(len(mounts(f"{DIRECTORY}/{name}")) == 1 for name in listed())
        unmount_everything()


def test_a_name_that_is_taken_is_refused_and_kept() -> None:
    ip("netns", "add", "blue")
    before = os.stat(f"{DIRECTORY}/blue").st_ino
    with raises(NetnsExists, unusable=False) as caught:
        create("blue")
    assert caught.value.errno == errno.EEXIST
    assert isinstance(caught.value, FileExistsError)
    assert os.stat(f"{DIRECTORY}/blue").st_ino == before


@pytest.mark.parametrize("name", ["", "a/b", ".", "..", "n" * 256, "a\0b", "netns:"])
def test_a_bad_name_is_refused_before_anything_happens(name: str) -> None:
    for function in (named.create, ns.remove, ns.Netns.create):
        with pytest.raises(InvalidValue) as caught:
            function(name)
        assert caught.value.field == "netns"
    assert mounts(DIRECTORY) == []


def test_without_rights_nothing_is_created_and_the_capability_is_named() -> None:
    create("red")
    with dropped():
        with raises(NotPermitted, capability="CAP_SYS_ADMIN", errno=errno.EPERM):
            create("blue")
        with raises(NotPermitted, capability="CAP_SYS_ADMIN"):
            ns.remove("red")
    assert listed() == ["red"]


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_creation_leaves_no_file(failure: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> None:
        raise failure

    monkeypatch.setattr(named, "_mounted", fail)
    with pytest.raises((NetlinkError, KeyboardInterrupt)) as caught:
        create("blue")
    if isinstance(caught.value, NetlinkError):
        assert caught.value.errno == errno.ENOSPC
    assert os.listdir(DIRECTORY) == []


def test_a_failed_creation_does_not_hide_why_when_the_file_is_gone_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> None:
        os.unlink(path)
        raise ZeroDivisionError

    monkeypatch.setattr(named, "_mounted", fail)
    with pytest.raises(ZeroDivisionError):
        create("blue")


def test_a_file_in_the_directorys_place_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NetlinkError, match="EEXIST"):
        named.create("blue", directory=str(tmp_path / "file"))
    with pytest.raises(NetlinkError, match="ENOTDIR"):
        ns.names(directory=str(tmp_path / "file"))


def test_a_directory_of_ones_own_works_the_same(tmp_path: Path) -> None:
    directory = str(tmp_path / "netns")
    named.create("blue", directory=directory).close()
    try:
        assert ns.names(directory) == ["blue"]
        assert len(mounts(directory)) == 1
    finally:
        ns.remove("blue", directory=directory)
        umount2(directory.encode(), MNT_DETACH)
    assert listed() == []


def test_a_directory_that_cannot_be_shared_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(named, "mount", refuse)
    with pytest.raises(NetlinkError, match="ENOMEM"):
        create("blue")


def test_removing_what_is_not_there_is_reported_unless_it_may_be_missing() -> None:
    with raises(NetnsNotFound, netns="netns:blue") as caught:
        ns.remove("blue")
    assert caught.value.netns == "netns:blue"
    ns.remove("blue", missing_ok=True)


def test_removing_takes_a_leftover_file_too() -> None:
    os.mknod(f"{DIRECTORY}/left")
    ns.remove("left")
    assert os.listdir(DIRECTORY) == []


def test_removing_takes_mounts_that_lie_on_one_another() -> None:
    create("blue")
    mount(b"/proc/thread-self/ns/net", f"{DIRECTORY}/blue".encode(), b"none", MS_BIND, None)
    assert len(mounts(f"{DIRECTORY}/blue")) == 2
    ns.remove("netns:blue")
    assert listed() == []


def test_removing_a_symbolic_link_leaves_what_it_points_to() -> None:
    create("blue")
    os.symlink(f"{DIRECTORY}/blue", f"{DIRECTORY}/alias")
    ns.remove("alias")
    assert listed() == ["blue"]
    assert len(mounts(f"{DIRECTORY}/blue")) == 1


def test_removing_a_directory_is_refused() -> None:
    os.mkdir(f"{DIRECTORY}/dir")
    try:
        with pytest.raises(NetlinkError):
            ns.remove("dir")
    finally:
        os.rmdir(f"{DIRECTORY}/dir")


def test_listing_what_may_not_be_read_is_not_permitted(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked").chmod(0)
    with dropped(), raises(NotPermitted, errno=errno.EACCES):
        ns.names(str(tmp_path / "locked"))


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("options", [{}, {"up": True}, {"exist_ok": True}])
def test_a_creation_that_is_interrupted_at_any_bytecode_leaves_no_name(options: dict[str, bool]) -> None:
    def create() -> None:
        ns.Netns.create("blue", **options).close()

    def belongs(code: CodeType) -> bool:
        return code.co_filename.endswith(("/ns/netns.py", "/ns/named.py")) and code.co_qualname in (
            *("Netns.create", "Netns.__init__", "create", "_mounted", "_ready"),
        )

    create()
    ns.remove("blue")
    each = distinct(boundaries(create, belongs))[:-1]  # the last is the return
    ns.remove("blue")
    before = open_fds()
    for boundary in each:
        assert interrupted(create, boundary), boundary
        assert ns.names() == [], boundary
    assert open_fds() == before
