"""Programs that change to another user, in the tests of an ordinary user: with ranges of ids, and without."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from .plugin import Project, has_program, unprivileged

needs_newuidmap = pytest.mark.skipif(not shutil.which("newuidmap"), reason="newuidmap is not installed")
needs_dnsmasq = pytest.mark.skipif(not has_program("dnsmasq"), reason="dnsmasq is not installed")

DROPS_PRIVILEGES = """
import time

def test_program(netns):
    netns.run(["setpriv", "--reuid=101", "--regid=102", "--groups=103", "id"])
"""
# As the page about the plugin has it, but for the user.
DAEMON = """
def test_daemon(netns):
    alone = ["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--no-resolv", "--no-hosts"]
    daemon = netns.start(["dnsmasq", *alone, "--address=/db.test/192.0.2.7"])
    netns.wait_listening(53, udp=True)
    deadline = time.monotonic() + 30
    while open(f"/proc/{daemon.pid}/status").read().partition("Gid:")[2].split()[0] == "0":
        assert daemon.poll() is None
        assert time.monotonic() < deadline  # it drops its privileges some time after it listens
        time.sleep(0.01)
"""
FAILS = """
def test_daemon(netns):
    daemon = netns.start(["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--no-resolv"])
    daemon.wait(60)
    netns.wait_listening(53, udp=True)
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    return Project(pytester)


def somebody(project: Project, ranges: str) -> list[str]:
    """Return the words before a command that run it as an ordinary user to whom /etc/subuid grants `ranges`.

    The files in /etc are replaced in a separate mount namespace of the command.
    """
    Path(project.path).chmod(0o777)
    bindings = ""
    for name, line in (
        ("passwd", "somebody:x:4321:4321::/tmp:/bin/sh"),
        ("group", "somebody:x:4321:"),
        ("subuid", ranges),
        ("subgid", ranges),
    ):
        there = f"/etc/{name}"
        content = Path(there).read_text() if os.path.exists(there) else ""
        file = project.write(f"{content.rstrip()}\n{line}\n".lstrip(), f"etc/{name}")
        bindings += f"touch {there}; mount --bind {file} {there}; "
    everywhere = dict.fromkeys(map(Path, (str(project.path), sys.base_prefix, sys.prefix)))
    user = "setpriv --reuid 4321 --regid 4321 --clear-groups"
    environment = f"LOGNAME=somebody HOME=/ PYTEST_DEBUG_TEMPROOT={project.path}"
    script = f'{bindings}{"".join(map(_opened, everywhere))}exec {user} env {environment} "$@"'
    return ["unshare", "-m", "sh", "-ec", script, "sh"]


def _opened(path: Path) -> str:
    """Commands that let everybody pass the directories above `path`, which is alone in them in this mount namespace."""
    commands = "mount -t tmpfs none /mnt; "
    for inner, outer in zip((path, *path.parents), path.parents, strict=False):
        if not outer.stat().st_mode & 0o001:
            commands += f"mkdir -p /mnt{inner}; mount --rbind {inner} /mnt{inner}; "
            commands += f"mount -t tmpfs -o mode=755 none {outer}; "
            commands += f"mkdir {inner}; mount --rbind /mnt{inner} {inner}; "
    return commands


@needs_newuidmap
@needs_dnsmasq
def test_an_ordinary_user_who_is_granted_ranges_can_drop_privileges(project: Project) -> None:
    project.write(DROPS_PRIVILEGES + DAEMON)
    result = project.run(before=somebody(project, "somebody:300000:65536"))
    result.assert_outcomes(passed=2)
    assert "netns: isolated in user, network and mount namespaces" in result.stdout.str()
    assert "uidmap" not in result.stdout.str()


@needs_newuidmap
def test_where_some_ids_are_missing_the_run_goes_on_and_says_which(project: Project) -> None:
    project.write(DROPS_PRIVILEGES)
    result = project.run(before=somebody(project, "somebody:300000:50"))
    result.assert_outcomes(failed=1)
    header, *_ = (line for line in result.outlines if "ids above 50 are mapped" in line)
    assert header.startswith("netns: ")


@needs_dnsmasq
def test_a_daemon_that_cannot_drop_privileges_says_why(project: Project) -> None:
    project.write(FAILS)
    result = project.run(before=unprivileged())
    result.assert_outcomes(failed=1)
    told = result.stdout.str().partition("= FAILURES =")[2]
    assert "dnsmasq ended with exit code" in told
    assert told.count("no id but 0 is mapped") >= 2  # by what waited for it, and below the node
