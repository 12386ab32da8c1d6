"""Wait until a condition of a test holds, such as that a daemon listens."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Final, TypeVar

from vethlib._primitives import time
from vethlib.errors import VethError, WaitTimeout

__all__ = ["is_listening", "wait_until"]

T = TypeVar("T")

_PAUSES: Final = (0.001, 0.05)  # seconds between two calls: the first, doubled up to the longest
_NOT_YET: Final = (OSError, AssertionError, LookupError, VethError, subprocess.SubprocessError)


def wait_until(condition: Callable[[], T], what: str, timeout: float, *, node: str) -> T:
    """Return the first true result of `condition`; an error of a usual kind means that it does not hold yet.

    Raises WaitTimeout after `timeout` seconds. It names `what` and the `node`, and has the last error as its cause.
    """
    deadline = time.monotonic() + timeout
    pause, longest = _PAUSES
    while True:
        failure: BaseException | None = None
        try:
            if result := condition():
                return result
        except _NOT_YET as error:
            failure = error
        if time.monotonic() >= deadline:
            reason = f": {failure}" if failure is not None else ""
            text = f"{what} in node {node} after {timeout:g} s{reason}"
            raise WaitTimeout(text, awaited="condition", name=node, seconds=timeout) from failure
        time.sleep(pause)
        pause = min(2 * pause, longest)


def is_listening(port: int, *, udp: bool) -> bool:
    """Return whether a TCP socket listens on the port, or a UDP socket is bound to it, in the thread's namespace."""
    # proc_pid_net(5). The state is hexadecimal: 0A is TCP_LISTEN; a UDP socket that is not connected has 07, TCP_CLOSE.
    state = "07" if udp else "0A"
    for table in ("udp", "udp6") if udp else ("tcp", "tcp6"):
        try:
            with open(f"/proc/thread-self/net/{table}") as lines:
                next(lines)
                for line in lines:
                    fields = line.split()
                    if fields[3] == state and int(fields[1].rpartition(":")[2], 16) == port:
                        return True
        except FileNotFoundError:
            pass  # no IPv6 in this kernel
    return False
