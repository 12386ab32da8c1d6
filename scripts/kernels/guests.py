"""Starts a kernel whose root is this machine's, read-only, and has it run a job.

A job is a shell script. It runs in a copy of the checkout; whatever it writes to /run/out appears in a directory here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

from scripts.kernels.images import Image
from scripts.kernels.packages import Unavailable

__all__ = ["TREE", "UserMode", "xstate"]

HERE = Path(__file__).resolve().parent
TREE = HERE.parents[1]

# In a mount namespace that ends with the command, everything is read-only except the directory $1, and a tmpfs for the
# guest's memory. The guest mounts its root read-only, too; this holds even if a test in there mounts it again.
_READ_ONLY = r"""
set -e
out=$1; shift
mount --bind "$out" "$out"
mkdir "$out/memory"
mount -t tmpfs memory "$out/memory"
awk '{print $2}' /proc/self/mounts | while read -r mount; do
  case $mount in
    "$out"|"$out"/*|/dev|/dev/*|/proc|/proc/*|/sys|/sys/*) ;;
    *) mount -o remount,bind,ro "$(printf %b "$mount")" ;;
  esac
done
cd "$out"
exec "$@"
"""
_MEMORY = "3000M"


class UserMode:
    """User-Mode Linux: a kernel that is an ordinary process. It needs no KVM, boots in two seconds, and has one CPU."""

    name = "uml"

    def __init__(self, image: Image, busybox: Path, preloaded: Path) -> None:
        self.image = image
        self._busybox = busybox
        self._preloaded = preloaded

    def run(self, job: str, out: Path, limit: float, stop: threading.Event) -> bool:
        """Run `job` for up to `limit` seconds, or until `stop`; return whether the guest ended itself by then."""
        _prepare(self.image, job, out)
        variables = [
            f"TMPDIR={out}/memory",
            f"LD_PRELOAD={self._preloaded}",
            *([] if self.image.libraries is None else [f"LD_LIBRARY_PATH={self.image.libraries}"]),
        ]
        kernel = [
            *(f"mem={_MEMORY}", "root=/dev/root", "rootfstype=hostfs", "rootflags=/"),
            *("con=null", "con0=null,fd:2", "ssl=null"),
            *(f"umid=vethlib-{os.getpid()}-{self.image.version}", f"uml_dir={out}"),
            *_arguments(out, self._busybox),
        ]
        return _run(["env", *variables, str(self.image.program), *kernel], out, limit, stop)


def _prepare(image: Image, job: str, out: Path) -> None:
    """Write what guest-init reads into a new directory."""
    out.mkdir(parents=True)
    (out / "job").write_text(job)
    (out / "modules").write_text("".join(f"{file}\n" for file in image.files_of_modules()))


def _arguments(out: Path, busybox: Path) -> list[str]:
    """Return the kernel's arguments that guest-init reads, and those that start it."""
    for value in (TREE, busybox):
        if " " in str(value):
            raise Unavailable(f"a kernel's arguments cannot have blanks: {value}")
    return [
        *("ro", "panic=-1", f"init={HERE / 'guest-init'}"),
        *(f"veth.tree={TREE}", f"veth.out={out}", f"veth.busybox={busybox}"),
    ]


def _run(command: list[str], out: Path, limit: float, stop: threading.Event) -> bool:
    """Run the program that is a guest, with its console in `out`; end it after `limit` seconds, or at `stop`."""
    alone = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _READ_ONLY, "sh", str(out)]
    deadline = time.monotonic() + limit
    with open(out / "console", "wb") as console:
        guest = subprocess.Popen(
            [*alone, *command],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while guest.poll() is None and time.monotonic() < deadline and not stop.wait(0.1):
                pass
        finally:
            if guest.poll() is None:
                os.killpg(guest.pid, signal.SIGKILL)
                guest.wait()
    return (out / "ended").exists()


def xstate(directory: Path) -> Path:
    """Return xstate.c as a library, compiled if necessary."""
    source, library = HERE / "xstate.c", directory / "xstate.so"
    directory.mkdir(parents=True, exist_ok=True)
    if not library.exists() or library.stat().st_mtime < source.stat().st_mtime:
        command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source)]
        try:
            compiled = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            raise Unavailable("cc is not installed: User-Mode Linux needs a library that it compiles") from None
        if compiled.returncode:
            raise Unavailable(f"{source.name} cannot be compiled: {compiled.stderr.strip()}")
    return library
