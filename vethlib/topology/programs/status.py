"""Determine how a program has ended, without waiting for it: its ``returncode`` stays None until the test asks for it.

:meth:`Node.wait_listening` ends if a program has failed, unless the test already knows that.
"""

from __future__ import annotations

import os
import subprocess
from typing import Any

__all__ = ["exit_code"]


def exit_code(program: subprocess.Popen[Any]) -> int | None:
    """Return the exit code of a program as ``Popen.poll`` does; None if it is running."""
    if program.returncode is not None:
        return program.returncode
    try:
        ended = os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return program.poll()  # somebody else has waited for it, or it belongs to the parent of this process
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
