"""Starts a kernel whose root is this machine's, read-only, and has it run a job.

A job is a shell script. It runs in a copy of the checkout; whatever it writes to /run/out appears in a directory here.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from scripts.kernels.images import EARLY_MODULES, Image
from scripts.kernels.initramfs import archive
from scripts.kernels.packages import Unavailable
from scripts.kernels.stock import Emulator
from scripts.kernels.suites import SUITES

__all__ = ["TREE", "Guest", "Qemu", "UserMode", "xstate"]

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
_SHARED = "security_model=none,multidevs=remap"


class Guest(ABC):
    """A kernel in a kind of guest.

    `name` is that of the kind in the record; a suite may take `patience` times its limit; and `suites` are run if none
    are named.
    """

    name: ClassVar[str]
    patience: ClassVar[int] = 1
    suites: ClassVar[Sequence[str]]

    def __init__(self, image: Image, busybox: Path) -> None:
        self.image = image
        self.busybox = busybox

    def run(self, job: str, out: Path, limit: float, stop: threading.Event) -> bool:
        """Run `job` for up to `limit` seconds, or until `stop`; return whether the guest ended itself by then."""
        out.mkdir(parents=True)
        (out / "job").write_text(job)
        (out / "modules").write_text("".join(f"{file}\n" for file in self.image.files_of_modules()))
        return _run(self.command(out), out, limit, stop)

    @abstractmethod
    def command(self, out: Path) -> list[str]:
        """Return the command that is the guest; files that it needs are written to `out`."""


class UserMode(Guest):
    """User-Mode Linux: a kernel that is an ordinary process. It needs no KVM, boots in two seconds, and has one CPU."""

    name = "uml"
    suites = tuple(suite for suite in SUITES if suite != "modules")  # whose tests are part of live

    def __init__(self, image: Image, busybox: Path, preloaded: Path) -> None:
        super().__init__(image, busybox)
        self._preloaded = preloaded

    def command(self, out: Path) -> list[str]:
        """Return the command."""
        variables = [
            f"TMPDIR={out}/memory",
            f"LD_PRELOAD={self._preloaded}",
            *([] if self.image.libraries is None else [f"LD_LIBRARY_PATH={self.image.libraries}"]),
        ]
        kernel = [
            *(f"mem={_MEMORY}", "root=/dev/root", "rootfstype=hostfs", "rootflags=/"),
            *("con=null", "con0=null,fd:2", "ssl=null"),
            *(f"umid=vethlib-{os.getpid()}-{out.name}", f"uml_dir={out}"),
            *_arguments(self.busybox, "hostfs", out),
        ]
        return ["env", *variables, str(self.image.program), *kernel]


class Qemu(Guest):
    """QEMU without KVM: a stock kernel on a whole machine with two CPUs, whose every instruction is emulated."""

    name = "qemu"
    patience = 5
    suites = ("doctor", "demo", "scenario", "bench", "modules")

    def __init__(self, image: Image, busybox: Path, emulator: Emulator) -> None:
        super().__init__(image, busybox)
        self._emulator = emulator

    def command(self, out: Path) -> list[str]:
        """Return the command, and write the initramfs."""
        initramfs = out / "initramfs"
        initramfs.write_bytes(archive(self._first_files()))
        # 9p finds the root and `out` by these tags.
        kernel = ["console=ttyS0", "mitigations=off", *_arguments(self.busybox, "9p", "out")]
        return [
            *self._emulator.command,
            *("-accel", "tcg,thread=multi", "-machine", "q35", "-cpu", "max,la57=off", "-smp", "2", "-m", _MEMORY),
            *("-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"),
            *("-kernel", str(self.image.program), "-initrd", str(initramfs), "-append", " ".join(kernel)),
            *("-virtfs", f"local,path=/,mount_tag=root,{_SHARED},readonly=on"),
            *("-virtfs", f"local,path={out},mount_tag=out,{_SHARED}"),
        ]

    def _first_files(self) -> dict[str, bytes]:
        modules = self.image.files_of_modules(EARLY_MODULES)
        return {
            "init": (HERE / "initramfs-init").read_bytes(),
            "bin/busybox": self.busybox.read_bytes(),
            "proc/": b"",
            "root/": b"",
            **{f"modules/{number:02}-{file.name}": file.read_bytes() for number, file in enumerate(modules)},
        }


def _arguments(busybox: Path, kind: str, share: Path | str) -> list[str]:
    """Return the kernel's arguments that guest-init reads, and those that start it.

    `share` is what a filesystem of this kind has to mount, so that /run/out is a directory of the host.
    """
    for value in (TREE, busybox, share):
        if re.search(r"[\s,]", str(value)):
            raise Unavailable(f"a kernel's arguments cannot have blanks or commas: {value}")
    return [
        *("ro", "panic=-1", f"init={HERE / 'guest-init'}"),
        *(f"veth.tree={TREE}", f"veth.out={kind}:{share}", f"veth.busybox={busybox}"),
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
