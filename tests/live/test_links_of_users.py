"""References through symbolic links of another user, who may make them lead to any namespace of the host."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.applying import interface
from tests.live.configuring import by_file, placed, until
from tests.live.other_user import OTHER, become_other
from tests.programs import attended
from tests.refusing import raises
from tests.witness import names
from vethlib import Netns, NetnsNotFound, Session, ns
from vethlib.agent import Configurator
from vethlib.agent.reasons import ReasonCode

pytestmark = [
    pytest.mark.usefixtures("home"),
    pytest.mark.skipif(os.geteuid() != 0, reason="somebody else is needed"),
]


def link_of(user: int, link: Path, target: object) -> None:
    """Make a symbolic link of a user, in place of the present one."""
    new = link.with_name("new")
    new.symlink_to(str(target))
    os.lchown(new, user, user)
    new.rename(link)


def inode_of(ref: str) -> int:
    with ns.open_owned(ref) as owner:
        return os.fstat(owner.fileno()).st_ino


@pytest.fixture
def theirs() -> Iterator[Path]:
    """The namespace that another user has made for itself."""
    command = ["unshare", "--user", "--net", "sh", "-c", "echo; read _"]
    pipe = subprocess.PIPE
    with attended(subprocess.Popen(command, stdin=pipe, stdout=pipe, preexec_fn=become_other)) as process:
        assert process.stdout is not None
        if not process.stdout.readline():
            pytest.skip("this host lets no ordinary user make namespaces")
        yield Path(f"/proc/{process.pid}/ns/net")
        process.kill()


@pytest.fixture(params=["in memory", "asked"])
def at_hand(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths that the kernel has in memory, and kernels that cannot tell."""
    if request.param == "asked":
        monkeypatch.setattr("vethlib.ns.files.glance._can_open_cached", False)


def to_a_name(at: Path, user: int) -> str:
    link_of(user, at / "link", "/run/netns/blue")
    return f"path:{at}/link"


def to_a_relative_path(at: Path, user: int) -> str:
    link_of(user, at / "link", os.path.relpath("/run/netns/blue", at.resolve()))
    return f"path:{at}/link"


def to_a_process(at: Path, user: int) -> str:
    link_of(user, at / "link", f"/proc/{os.getpid()}/ns/net")
    return f"path:{at}/link"


def to_whoever_looks(at: Path, user: int) -> str:
    link_of(user, at / "link", "/proc/self/ns/net")
    return f"path:{at}/link"


def on_the_way(at: Path, user: int) -> str:
    link_of(user, at / "link", "/run/netns")
    return f"path:{at}/link/blue"


def behind_a_trusted_link(at: Path, user: int) -> str:
    link_of(user, at / "link", "/run/netns/blue")
    link_of(0, at / "first", at / "link")
    return f"path:{at}/first"


def behind_a_name(at: Path, user: int) -> str:
    link_of(user, at / "link", f"/proc/{os.getpid()}/ns/net")
    link_of(0, Path("/run/netns/lent"), at / "link")
    return "netns:lent"


WAYS = [
    to_a_name,
    to_a_relative_path,
    to_a_process,
    to_whoever_looks,
    on_the_way,
    behind_a_trusted_link,
    behind_a_name,
]


@pytest.fixture
def lent() -> Iterator[None]:
    yield
    ns.remove("lent", missing_ok=True)


@pytest.mark.usefixtures("lent", "at_hand")
@pytest.mark.parametrize("way", WAYS)
def test_a_users_link_leads_to_no_namespace_of_somebody_else(
    blue: str, tmp_path: Path, way: Callable[[Path, int], str]
) -> None:
    ref = way(tmp_path, OTHER)
    with raises(NetnsNotFound, netns=ref, taken=True) as caught:
        ns.open_owned(ref)
    assert str(OTHER) in str(caught.value)


@pytest.mark.usefixtures("lent", "at_hand")
@pytest.mark.parametrize("way", WAYS)
def test_links_of_root_lead_anywhere(blue: str, tmp_path: Path, way: Callable[[Path, int], str]) -> None:
    expected = "/proc/self/ns/net" if way in (to_a_process, to_whoever_looks, behind_a_name) else "/run/netns/blue"
    assert inode_of(way(tmp_path, 0)) == os.stat(expected).st_ino


@pytest.mark.usefixtures("at_hand")
def test_a_users_link_leads_to_the_users_own_namespace(theirs: Path, tmp_path: Path) -> None:
    link_of(OTHER, tmp_path / "link", theirs)
    assert inode_of(f"path:{tmp_path}/link") == theirs.stat().st_ino
    link_of(OTHER + 1, tmp_path / "another", tmp_path / "link")
    with raises(NetnsNotFound, taken=True):
        ns.open_owned(f"path:{tmp_path}/another")


def test_no_user_moves_a_link_into_the_home_namespace_or_a_foreign_one(
    theirs: Path, tmp_path: Path, blue: str, home: Netns
) -> None:
    link = tmp_path / "link"
    link_of(OTHER, link, theirs)
    with Session() as session, Configurator(session) as configurator:
        ends = [interface("a", "b"), placed("b", "a", by_file(link))]

        def states() -> set[str]:
            return {str(status.state) for status in configurator.status()}

        configurator.resync(ends)
        until(configurator, lambda: states() == {"CONFIGURED"})
        assert names() == {"a"}
        for target in ("/proc/self/ns/net", f"/proc/{os.getpid()}/ns/net", "/run/netns/blue"):
            link_of(OTHER, link, target)
            until(configurator, lambda: states() == {"PENDING"})
            assert {status.code for status in configurator.status()} == {ReasonCode.NOT_A_NETNS}
            assert names() == names(blue) == set()
            link_of(OTHER, link, theirs)
            until(configurator, lambda: states() == {"CONFIGURED"})
            assert (names(), names(blue)) == ({"a"}, set())
