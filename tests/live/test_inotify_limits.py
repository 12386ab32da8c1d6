"""A limit of inotify is reached: the error names the sysctl, and nothing that would not help."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.applying import value
from tests.live.descriptors import no_descriptor_left
from tests.refusing import raises
from vethlib import NetlinkError
from vethlib.follow.inotify import INotify

ROOT = Path(__file__).parents[2]
VETHCTL = [sys.executable, "-m", "vethlib"]
LIMITS = {
    "max_inotify_instances": "fs.inotify.max_user_instances",
    "max_inotify_watches": "fs.inotify.max_user_watches",
}
COMMANDS = {
    "status --watch": ("status", "--watch", "--label", "limits", "--store", "dir:{}", "--status-dir", "{}/status"),
    "agent": ("agent", "--once", "--label", "limits", "--store", "dir:{}", "--status-dir", "{}/status"),
    "watch": ("watch", "--timeout", "1"),
}


def with_limit(name: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose user may have no instance, or no watch (in a user namespace of its own)."""
    limited = ["unshare", "-Urnm", "sh", "-c", f'echo 0 >/proc/sys/user/{name}; exec "$@"', "sh"]
    return subprocess.run([*limited, *command], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)


@pytest.mark.parametrize(
    ("command", "limit"),
    [
        (command, limit)
        for command in COMMANDS
        for limit in LIMITS
        # A namespace whose path cannot be watched is looked at every second instead.
        if (command, limit) != ("watch", "max_inotify_watches")
    ],
)
def test_a_command_names_the_sysctl(tmp_path: Path, command: str, limit: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(value("a", "b")))
    done = with_limit(limit, *VETHCTL, *(word.format(tmp_path) for word in COMMANDS[command]))
    assert LIMITS[limit] in done.stderr
    assert "ulimit" not in done.stderr
    assert "free some space" not in done.stderr
    assert done.returncode not in (0, 70)


def test_a_follower_names_the_sysctl() -> None:
    script = """
from vethlib.follow import Follower
try:
    Follower()
except OSError as error:
    print(type(error).__name__, error.errno, error)
"""
    done = with_limit("max_inotify_instances", sys.executable, "-c", script)
    assert done.stdout.startswith(f"NetlinkError {errno.EMFILE} ")
    assert "fs.inotify.max_user_instances" in done.stdout
    assert "ulimit" not in done.stdout


def test_a_process_without_a_descriptor_left_is_told_so() -> None:
    INotify().close()
    with no_descriptor_left(), raises(NetlinkError, errno=errno.EMFILE) as caught:
        INotify()
    assert "ulimit -n" in str(caught.value)
    assert "sysctl" not in str(caught.value)
