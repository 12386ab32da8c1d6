"""A Python that was built with old kernel headers lacks functions for system calls that the kernel nevertheless has."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.programs import attended
from vethlib import ns
from vethlib.topology.programs.supervisor import Supervised

pytestmark = pytest.mark.needs_kernel("5.3")

LACKING = ("pidfd_open", "pidfd_send_signal", "memfd_create", "MFD_CLOEXEC", "RWF_NOWAIT")
OLDER = f"""
import _signal, os, signal
for module in os, signal, _signal:
    for name in {LACKING}:
        vars(module).pop(name, None)
"""
IN_ANOTHER_NAMESPACE = """
import atexit, select, subprocess
from vethlib import ns
there = ns.call_in_new(ns.current)
with ns.entered(there):
    process = subprocess.Popen(["sleep", "600"])
atexit.register(process.kill)
"""
USES = {
    "a program in a node": """
from vethlib.topology import Topology
with Topology.build("a -- b") as net:
    assert net["a"].run(["echo", "done"]).stdout == "done\\n"
""",
    "a relayed wire": """
from vethlib.topology import Topology
Topology.build("a -- b delay=1ms", impair="userspace").close()
""",
    "a process in another namespace": f"""
{IN_ANOTHER_NAMESPACE}
from vethlib import Netns
netns = Netns.of_process(process.pid)
assert ns.identity(netns.fd) == ns.identity(there.fileno())
""",
    "a process that is followed": f"""
{IN_ANOTHER_NAMESPACE}
from vethlib.follow import Follower
with Follower() as follower:
    follower.follow([f"pid:{{process.pid}}"])
    process.kill()
    assert follower.due() is None
    select.select([follower], [], [], 60)
    assert follower.changed()
""",
    "the end of kept nodes": f"""
{IN_ANOTHER_NAMESPACE}
from vethlib.topology import keep
keep._end_processes({{ns.identity(there.fileno())}})
assert process.wait(60) == -9
""",
    "the end of processes that a test left": f"""
{IN_ANOTHER_NAMESPACE}
from vethlib.pytest_netns.leaks import leftovers
from vethlib.pytest_netns.leaks.found import Found
assert leftovers.kill([Found("process", ns.identity(there.fileno()), process.pid)])
assert process.wait(60) == -9
""",
    "a hook": """
import asyncio
from vethlib.agent.hooks.command import run
assert asyncio.run(run(["/bin/sh", "-c", 'test "$(cat)" = event'], b"event", {}, 60)) == ""
""",
    "a log that nobody reads": """
import fcntl, logging, os, sys
from vethlib.cli.term.logwriter import LogHandler
read, write = os.pipe()
log = logging.getLogger("x")
log.propagate = False
stream = os.fdopen(write, "w")
log.addHandler(handler := LogHandler(stream, 1 << 20))
for number in range(2000):
    log.warning("%s", "x" * 100)
handler.finish(0)
assert os.read(read, 101) == b"x" * 100 + b"\\n"
""",
    "doctor": """
from vethlib.cli.host.kernel_features import kernel_features
assert {finding.what: finding.ok for finding in kernel_features()}["kernel ≥ 5.3"]
""",
}


@pytest.mark.parametrize("use", USES)
def test_what_the_kernel_has_and_python_lacks_is_used_nevertheless(use: str) -> None:
    script = OLDER + USES[use]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_supervisor_of_programs_works_nevertheless(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (os, signal):
        for name in LACKING:
            monkeypatch.delattr(module, name, raising=False)
    alone = subprocess.Popen(["sleep", "600"], start_new_session=True)
    there = ns.call_in_new(ns.current)
    with ns.entered(there):
        inside = subprocess.Popen(["sleep", "600"])
    supervised = Supervised()
    supervised.take(f"+pid {alone.pid}")
    supervised.take(f"+netns {ns.identity(there.fileno())[1]} 0")
    with attended(alone), attended(inside), ThreadPoolExecutor() as pool:
        ended = [pool.submit(process.wait, 60) for process in (alone, inside)]
        supervised.end()
        assert [one.result() for one in ended] == [-signal.SIGTERM] * 2


@pytest.mark.parametrize("name", ["pidfd_open", "pidfd_send_signal", "memfd_create"])
def test_a_call_that_the_kernel_refuses_is_an_oserror(name: str) -> None:
    script = f"""
{OLDER}
from vethlib import _primitives
arguments = {{"pidfd_open": (2**22 + 1,), "pidfd_send_signal": (-1, 0), "memfd_create": ("x", 1 << 31)}}
try:
    getattr(_primitives, {name!r})(*arguments[{name!r}])
except OSError as error:
    print(error.errno)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300)
    expected = {"pidfd_open": errno.ESRCH, "pidfd_send_signal": errno.EBADF, "memfd_create": errno.EINVAL}
    assert (done.stdout, done.stderr) == (f"{expected[name]}\n", "")
