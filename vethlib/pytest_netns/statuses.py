"""The exit statuses of the programs that tests start."""

from __future__ import annotations

import signal
import threading

__all__ = ["keep_exit_statuses"]


def keep_exit_statuses() -> None:
    """Give SIGCHLD its default action if a test, or ``trap '' CHLD`` before the run, has made this process ignore it.

    Otherwise, the kernel discards the exit statuses of children, and :mod:`subprocess` reports that each has succeeded.
    """
    is_ignored = signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
    if is_ignored and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
