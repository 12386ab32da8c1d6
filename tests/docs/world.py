"""The environment in which a page runs: a bash in its own namespaces, which cannot change anything on the host.

``python -m tests.docs.world`` goes into them and runs that bash:

1. Its network and its mounts are its own, and with them /run/vethlib and /etc: its agents are not those of other pages.
2. So are its processes: a pid namespace with a /proc of its own. A command that looks for namespaces in /proc finds
   those of the page, not those of tests that run beside it.
3. Process 1 of the pid namespace does no more than start the bash and reap. (A bash that were process 1 itself would
   ignore the signals that a page sends to it.) With it ends whatever the page has started. SIGTERM to the process
   outside ends all of it, and then that process.

The kernel may refuse another /proc, as it does in a container that hides parts of the one it has. Then the page sees
the processes of the host, stderr says so, and the process itself becomes the bash.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from typing import NoReturn

from vethlib import ns
from vethlib.ns.syscalls import CLONE_NEWNS, MS_NODEV, MS_NOEXEC, MS_NOSUID, mount, unshare

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_CLONE_NEWPID = 0x2000_0000  # linux/sched.h
_BASH = ("bash", "--noprofile", "--norc")


def main(*, own_processes: bool = True) -> NoReturn:
    """Run a bash that reads commands from stdin, and end as it does.

    Without `own_processes` it sees those of the host: a page that is told their pids, by an engine, has to.
    """
    _end_with_parent()
    ns.isolate()
    os.makedirs("/run/vethlib", exist_ok=True)
    mount(b"tmpfs", b"/run/vethlib", b"tmpfs", 0, None)
    _own_etc()
    if own_processes:
        if not (refused := _try_own_processes()):
            _run_apart()
        print(f"this page sees the processes of the host, as it gets no /proc of its own: {refused}", file=sys.stderr)
        sys.stderr.flush()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # which Python ignores, and bash would leave ignored
    os.execvp(_BASH[0], _BASH)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _own_etc() -> None:
    # An ordinary user may have no overlays, on kernels before 5.11: then a page that writes to /etc fails.
    os.mkdir("/run/vethlib-docs")
    mount(b"tmpfs", b"/run/vethlib-docs", b"tmpfs", 0, None)
    for name in ("upper", "work"):
        os.mkdir(f"/run/vethlib-docs/{name}")
    options = b"lowerdir=/etc,upperdir=/run/vethlib-docs/upper,workdir=/run/vethlib-docs/work"
    with contextlib.suppress(OSError):
        mount(b"overlay", b"/etc", b"overlay", 0, options)
        shutil.rmtree("/etc/vethlib", ignore_errors=True)  # this host's own is not what the page is about
    subprocess.run(["umount", "--lazy", "/run/vethlib-docs"], check=False, capture_output=True)
    os.rmdir("/run/vethlib-docs")


def _try_own_processes() -> str:
    """Return why there can be no pid namespace with a /proc of its own, or "".

    It is tried in children, because there is no way back from it.
    """
    child = os.fork()
    if not child:
        number = 255
        try:
            unshare(_CLONE_NEWPID | CLONE_NEWNS)
            first = os.fork()
            if not first:
                _mount_proc()
                os._exit(0)
            number = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
        except OSError as error:
            number = error.errno or number
        finally:
            os._exit(number)
    number = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return os.strerror(number) if number else ""


def _mount_proc() -> None:
    mount(b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None)


def _run_apart() -> NoReturn:
    # Both signals are waited for, so that neither is lost on the way.
    awaited = {signal.SIGTERM, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    unshare(_CLONE_NEWPID)
    first = os.fork()
    if not first:
        _be_the_first(awaited)
    while signal.sigwait(awaited) == signal.SIGTERM:
        os.kill(first, signal.SIGKILL)
    # The kernel lets process 1 end only after all others of the namespace.
    code = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
    os._exit(code if code >= 0 else 128 - code)


def _be_the_first(blocked: set[signal.Signals]) -> NoReturn:
    try:
        _end_with_parent()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # without a handler, no process of the page can interrupt this one
        _mount_proc()
        # In a session of its own, so that a page which signals its process group does not reach further.
        bash = subprocess.Popen(_BASH, close_fds=False, start_new_session=True)
        while True:
            child, status = os.wait()
            if child == bash.pid:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)
    except OSError as error:
        print(error, file=sys.stderr, flush=True)
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()
