"""A thread does not leave its network namespace if it could not return.

So it is in a user namespace without a network namespace of its own (a rootless container with --network=host), and
where a sandbox refuses setns(2).
"""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.restricted_host import can_refuse

ROOT = Path(__file__).parents[2]

# The network namespace stays that of the parent; b belongs to the new user namespace, so that it can be entered.
IN_USERNS = ["unshare", "-Urm", "sh", "-ec"]
WITH_B = """
mount -t tmpfs none /run
mkdir /run/netns
touch /run/netns/b
unshare --net=/run/netns/b ip link set lo up
exec "$@"
"""
WHERE = "import os; where = lambda: os.stat('/proc/thread-self/ns/net').st_ino"
CALL = f"""
{WHERE}
import json, socket, sys, threading
from vethlib import End, IfIndexCache, Session, Veth, VethError, ns
from vethlib.monitor import Monitor
from vethlib.topology import Topology
before, outcome = where(), None
try:
    exec(sys.argv[1])
except VethError as error:
    outcome = type(error).__name__, getattr(error, "errno", None), getattr(error, "capability", "")
except ExceptionGroup as group:
    outcome = type(group.exceptions[0]).__name__, getattr(group.exceptions[0], "errno", None), ""
print(json.dumps([before == where(), outcome]))
"""
REFUSING = """
import os, sys
from tests.restricted_host import refuse
refuse(sys.argv[1], None, int(sys.argv[2]))
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""

NOT_PERMITTED = ["NotPermitted", errno.EPERM, "CAP_SYS_ADMIN"]


def in_userns(*command: str) -> subprocess.CompletedProcess[str]:
    whole = [*IN_USERNS, WITH_B, "sh", sys.executable, *command]
    return subprocess.run(whole, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)


def call_in_userns(code: str) -> tuple[bool, object]:
    done = in_userns("-c", CALL, code)
    assert done.stdout, done.stderr
    is_home, outcome = json.loads(done.stdout)
    return is_home, outcome


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    "code",
    [
        "ns.entered('b').__enter__()",
        "ns.call_in(ns.open_fd('b'), where)",
        "ns.map_in([ns.open_fd(''), ns.open_fd('b')], where)",
        "ns.call_in_new(where)",
        "ns.map_in_new(2, where)",
        "ns.Netns.anonymous()",
        "Session().links('b')",
        "Topology.build('a -- b')",
    ],
)
def test_a_namespace_from_which_there_is_no_way_back_is_not_entered(code: str) -> None:
    assert call_in_userns(code) == (True, NOT_PERMITTED)


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    "code",
    [
        "Session().create(Veth(End('u1', 'b'), End('u2', 'b')))",
        "Session().survey(['b'])",
        "Session().lookup_many([('x', 'b')])",
        "IfIndexCache(Session()).watch('b')",
        "IfIndexCache(Session()).watch_all(['b', ''])",
    ],
)
def test_no_call_of_a_session_or_a_cache_leaves_the_thread_elsewhere(code: str) -> None:
    is_home, outcome = call_in_userns(code)
    assert is_home
    assert outcome is None or outcome[0] == "NotPermitted"  # type: ignore[index]


@pytest.mark.usefixtures("home")
def test_a_monitor_watches_home_alone_if_there_is_no_way_back() -> None:
    code = "session = Session(); assert Monitor(session).netns == [''] and session.links() is not None"
    assert call_in_userns(code) == (True, None)


@pytest.mark.usefixtures("home")
def test_home_itself_needs_no_way_back() -> None:
    code = "assert ns.map_in([ns.open_fd('')] * 2, where) == [before] * 2 == [ns.call_in(ns.open_fd(''), where)] * 2"
    assert call_in_userns(code) == (True, None)


@pytest.mark.usefixtures("home")
def test_whether_there_is_a_way_back_is_asked_for_each_thread_and_again_in_a_forked_child() -> None:
    code = """
libc = __import__('ctypes').CDLL(None)
def elsewhere():
    assert libc.setns(ns.open_fd('b'), 0) == 0
    ns.call_in(ns.open_fd(''), where)  # to and from b, there is a way
thread = threading.Thread(target=elsewhere)
thread.start()
thread.join()
ns.call_in(ns.open_fd('b'), where)
"""
    assert call_in_userns(code) == (True, NOT_PERMITTED)
    forked = f"""
{WHERE}
import os, sys
from vethlib import NotPermitted, ns
assert ns.call_in_new(where) != where()
child = os.fork()
if child == 0:
    code = 1
    try:
        home = where()
        os.unshare(0x10000000)
        ns.call_in_new(where)
    except NotPermitted:
        code = 0 if home == where() else 2
    finally:
        os._exit(code)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    if sys.version_info >= (3, 12):
        assert subprocess.run([sys.executable, "-c", forked], check=False, cwd=ROOT, timeout=120).returncode == 0


@pytest.mark.usefixtures("home")
def test_doctor_says_that_there_is_no_way_back() -> None:
    done = in_userns("-m", "vethlib", "--json", "doctor")
    found = {one["check"]: one for one in json.loads(done.stdout)}
    assert done.returncode == 2
    assert (found["own namespace"]["ok"], found["own namespace"]["needed"]) == (False, True)
    assert found["own namespace"]["code"] == "not-permitted"
    assert "user namespace" in found["own namespace"]["detail"]
    assert not found["trial"]["ok"]


@pytest.mark.skipif(not can_refuse(), reason="the numbers of the system calls of this machine are not known")
@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
@pytest.mark.parametrize("code", ["ns.call_in_new(where)", "ns.map_in_new(2, where)", "ns.Netns.create('zz')"])
def test_a_sandbox_that_refuses_setns_keeps_threads_where_they_are(code: str, number: int) -> None:
    command = [sys.executable, "-c", REFUSING, "setns", str(number), "-c", CALL, code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)
    assert done.stdout, done.stderr
    kind = NOT_PERMITTED if number == errno.EPERM else ["NetlinkError", number, ""]
    assert json.loads(done.stdout) == [True, kind]
    doctor = [sys.executable, "-c", REFUSING, "setns", str(number), "-m", "vethlib", "--json", "doctor"]
    done = subprocess.run(doctor, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)
    found = {one["check"]: one for one in json.loads(done.stdout)}
    assert (found["own namespace"]["ok"], found["own namespace"]["needed"]) == (False, True)
    assert "setns" in found["own namespace"]["cure"]
