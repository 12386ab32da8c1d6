"""What a page runs in: a bash in network and mount namespaces of its own, in which nothing of the host is changed.

``python -m tests.docs.world`` goes into them and becomes that bash. /run/vethlib and /etc are the page's own, too: its
agents are not those of other pages.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess

from vethlib import ns
from vethlib.ns.syscalls import mount

_PR_SET_PDEATHSIG, _SIGKILL = 1, 9  # linux/prctl.h


def main() -> None:
    """Become bash, which reads commands from stdin."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    ns.isolate()
    os.makedirs("/run/vethlib", exist_ok=True)
    mount(b"tmpfs", b"/run/vethlib", b"tmpfs", 0, None)
    _own_etc()
    os.execvp("bash", ["bash", "--noprofile", "--norc"])


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


if __name__ == "__main__":
    main()
