"""vethctl doctor reports what a sandbox or a limit refuses."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.restricted_host import can_refuse

ROOT = Path(__file__).parents[2]
DOCTOR = ["-m", "vethlib", "--json", "doctor"]
REFUSING = """
import os, sys
from tests.restricted_host import refuse
refuse(sys.argv[1], None, int(sys.argv[2]))
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""


def findings(*command: str) -> tuple[int, dict[str, dict[str, object]]]:
    done = subprocess.run([*command], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert done.stderr == ""
    return done.returncode, {one["check"]: one for one in json.loads(done.stdout)}


@pytest.mark.skipif(not can_refuse(), reason="the numbers of the system calls of this machine are not known")
@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(("call", "check"), [("mount", "/run/netns"), ("inotify_init1", "inotify")])
@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_a_call_that_a_sandbox_refuses_is_found(call: str, check: str, number: int) -> None:
    code, found = findings(sys.executable, "-c", REFUSING, call, str(number), *DOCTOR)
    assert code == 2
    assert (found[check]["ok"], found[check]["needed"]) == (False, True)
    assert errno.errorcode[number] in str(found[check]["detail"])
    assert call.removesuffix("_init1") in str(found[check]["cure"])
    code, found = findings(sys.executable, *DOCTOR)
    assert found[check]["ok"]


def test_a_limit_of_inotify_is_found() -> None:
    limited = ["unshare", "-Urnm", "sh", "-c", 'echo 0 >/proc/sys/user/max_inotify_instances; exec "$@"', "sh"]
    _, found = findings(*limited, sys.executable, *DOCTOR)
    assert (found["inotify"]["ok"], found["inotify"]["needed"]) == (False, False)
    assert "fs.inotify.max_user_instances" in str(found["inotify"]["detail"])
