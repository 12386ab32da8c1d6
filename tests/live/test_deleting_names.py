"""Named namespaces that others delete while an agent wants them: the agent does not get in their way."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import Vethctl
from tests.live.applying import applied, interface, planned
from tests.live.configuring import is_state, pair, put, settle, state_of, until
from tests.witness import names
from vethlib import Session, ns
from vethlib.agent import Configurator, State
from vethlib.agent.host import creatable
from vethlib.agent.host.execution import execute
from vethlib.ns.opening import identity_at
from vethlib.ns.syscalls import MNT_DETACH, UMOUNT_NOFOLLOW, umount2

ROUNDS = 15
FILE = Path("/run/netns/ns1")


@pytest.fixture
def configurator(session: Session, monkeypatch: pytest.MonkeyPatch) -> Iterator[Configurator]:
    # As if the namespace had been there for long: no file is too young to be a leftover.
    monkeypatch.setattr("vethlib.agent.host.namespaces._CREATION", -60.0)
    with Configurator(session, label="deleting") as configurator:
        put(configurator, *pair("a", "b", "ns1"))
        settle(configurator)
        assert state_of(configurator, "a") == "CONFIGURED"
        yield configurator


def unmount() -> None:
    """The first half of ``ip netns del``."""
    umount2(os.fsencode(FILE), MNT_DETACH | UMOUNT_NOFOLLOW)


def test_the_file_is_left_to_who_has_unmounted_it(configurator: Configurator) -> None:
    for _ in range(3):
        inode = FILE.stat().st_ino
        unmount()
        before = FILE.lstat().st_ino
        end = time.monotonic() + 0.4
        while time.monotonic() < end:
            configurator.poll(0.02)
        assert FILE.lstat().st_ino == before != inode
        assert configurator.status("a")[0].state is State.RETRYING
        FILE.unlink()  # which fails if somebody has mounted something there
        until(configurator, is_state(configurator, State.CONFIGURED, "a"))
        assert names("ns1") == {"a"}


def test_deleting_never_fails_for_others(configurator: Configurator) -> None:
    for _ in range(ROUNDS):
        deletion = subprocess.Popen(["ip", "netns", "del", "ns1"], stderr=subprocess.PIPE, text=True)
        while deletion.poll() is None:
            configurator.poll(0.001)
        assert deletion.stderr is not None
        said = deletion.stderr.read()
        deletion.communicate()
        assert (deletion.returncode, said) == (0, "")
        configurator.resync()  # else it would be repaired less and less often
        until(configurator, lambda: identity_at(str(FILE)) is not None and names("ns1") == {"a"})
        until(configurator, is_state(configurator, State.CONFIGURED, "a"))


def test_a_file_that_nobody_removes_is_taken_in_the_end(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creatable, "PATIENCE", 0.3)
    unmount()
    os.utime(FILE, (1, 1))
    until(configurator, lambda: identity_at(str(FILE)) is not None and names("ns1") == {"a"}, 20)


def test_apply_leaves_it_a_moment_too(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    interfaces = [interface("a", "b", "ns1"), interface("b", "a")]
    applied(session, *interfaces)
    unmount()
    os.utime(FILE, (1, 1))
    made = planned(session, *interfaces)
    monkeypatch.setattr("vethlib.agent.host.namespaces.time.sleep", lambda _: FILE.unlink(missing_ok=True))
    assert execute(session, made).errors == []
    assert names("ns1") == {"a"}
    assert ns.names() == ["ns1"]


@pytest.mark.parametrize("age", [3600, -3600], ids=["old", "from the future"])
def test_a_leftover_file_is_taken_whatever_happened_to_the_clock(session: Session, age: float) -> None:
    FILE.parent.mkdir(exist_ok=True)
    os.mknod(FILE)
    FILE.chmod(0)
    os.utime(FILE, (time.time() - age,) * 2)
    applied(session, interface("a", "b", "ns1"), interface("b", "a"))
    assert names("ns1") == {"a"}


CHROOT = "import os, time; os.chroot('/proc'); print(flush=True); time.sleep(60)"
CHROOTED = f'sleep 60 & exec {sys.executable} -I -c "{CHROOT}"'


@pytest.mark.parametrize("wait", ["echo ready; exec sleep 60", CHROOTED], ids=["plain", "first in a chroot"])
def test_the_file_of_a_namespace_in_another_mount_namespace_is_no_leftover(
    session: Session, vethctl: Vethctl, wait: str
) -> None:
    interfaces = [interface("a", "b", "ns1"), interface("b", "a")]
    command = ["unshare", "--mount", "sh", "-c", f"set -e; ip netns add ns1; ip netns exec ns1 true; {wait}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()
            os.utime(FILE, (1, 1))
            errors = execute(session, planned(session, *interfaces)).errors
            there = ["nsenter", "--mount", f"--target={other.pid}", "ip", "-n", "ns1", "link"]
            assert subprocess.run(there, check=False, capture_output=True).returncode == 0
            says = f"{FILE} is a namespace only in the mount namespace of process ([0-9]+): "
            named = re.match(says, str(errors[0][1]))
            assert named is not None
            hint = vethctl("netns", "add", "ns1", "--json").error["hint"]
            assert hint == f"do not remove it: that would end the namespace, which process {named[1]} has there"
            assert os.readlink(f"/proc/{named[1]}/ns/mnt") == os.readlink(f"/proc/{other.pid}/ns/mnt")
        finally:
            os.killpg(other.pid, signal.SIGKILL)
    applied(session, *interfaces)
    assert names("ns1") == {"a"}
