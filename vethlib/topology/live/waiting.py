"""Wait until a condition of a test holds, such as that a daemon listens."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from vethlib import ns
from vethlib._primitives import time
from vethlib.errors import VethError, WaitTimeout
from vethlib.ns import Netns
from vethlib.ns.deadline import deadline_after
from vethlib.ns.idmap import missing_ids
from vethlib.topology.programs.status import exit_code
from vethlib.topology.programs.wording import describe_program

__all__ = ["wait_until", "wait_until_listening"]

T = TypeVar("T")

_PAUSES: Final = (0.001, 0.05)  # seconds between two calls: the first, doubled up to the longest
_POLL: Final = 0.01  # seconds between two looks for a listener
_ENDING: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGKILL})  # with these, a test ends a program
_MOST: Final = 8  # programs that are named in a message
_NOT_YET: Final = (OSError, AssertionError, LookupError, VethError, subprocess.SubprocessError)


def wait_until(condition: Callable[[], T], what: str, timeout: float, *, node: str) -> T:
    """Return the first true result of `condition`; an error of a common kind means that it does not hold yet.

    Raises WaitTimeout, which names `what` and the `node`, after `timeout` seconds; its cause is the last error.
    """
    deadline = deadline_after(timeout)
    pause, longest = _PAUSES
    while True:
        failure: BaseException | None = None
        try:
            if result := condition():
                return result
        except _NOT_YET as error:
            failure = error
        if deadline is not None and time.monotonic() >= deadline:
            reason = f": {failure}" if failure is not None else ""
            text = f"{what} in node {node} after {timeout:g} s{reason}"
            raise WaitTimeout(text, awaited="condition", name=node, seconds=timeout) from failure
        time.sleep(pause)
        pause = min(2 * pause, longest)


def wait_until_listening(
    netns: Netns, port: int, started: Sequence[subprocess.Popen[Any]], timeout: float, *, udp: bool, node: str
) -> None:
    """Wait until a socket in the namespace listens on a port, unless all programs that were `started` have failed.

    Programs that the caller has ended, waited for or polled do not end the wait: something else may listen soon.

    Raises WaitTimeout, which names the `node` and how the programs have ended.
    """
    deadline = deadline_after(timeout)
    unseen = [process for process in started if process.returncode is None]
    while not ns.call_in(netns.fd, lambda: _is_listening(port, udp=udp)):
        ended = [process for process in started if exit_code(process)]
        failed = [process for process in unseen if (code := exit_code(process)) and -code not in _ENDING]
        if (deadline is not None and time.monotonic() > deadline) or (failed and ended == started):
            what = f"nothing listens on {'UDP' if udp else 'TCP'} port {port} in node {node}"
            programs = "".join(f"; {describe_program(program)}" for program in ended[-_MOST:])
            if ended and (missing := missing_ids()):
                programs += f" ({missing})"
            text = what + (programs or f" after {timeout:g} s")
            raise WaitTimeout(text, awaited="listener", name=node, seconds=timeout)
        time.sleep(_POLL)


def _is_listening(port: int, *, udp: bool) -> bool:
    """Return whether a TCP socket listens on the port, or a UDP socket is bound to it, in the thread's namespace."""
    # See proc_pid_net(5). The state is hexadecimal: 0A is TCP_LISTEN; an unconnected UDP socket has 07, TCP_CLOSE.
    state = "07" if udp else "0A"
    for table in ("udp", "udp6") if udp else ("tcp", "tcp6"):
        try:
            with open(f"/proc/thread-self/net/{table}", encoding="utf-8") as lines:
                next(lines)
                for line in lines:
                    fields = line.split()
                    if fields[3] == state and int(fields[1].rpartition(":")[2], 16) == port:
                        return True
        except FileNotFoundError:
            pass  # no IPv6 in this kernel
    return False
