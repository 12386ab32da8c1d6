"""Notify the service manager of the state of an agent (sd_notify(3)), if there is one."""

from __future__ import annotations

import os
import socket

from vethlib._primitives import time

__all__ = ["Notifier"]

_PATIENCE = 0.5  # seconds for which an important notification waits if the queue of the manager is full


class Notifier:
    """Sends notifications to the socket in $NOTIFY_SOCKET; without that variable, it does nothing.

    `interval` is the number of seconds between two calls of :meth:`alive`: half of the limit of the watchdog
    ($WATCHDOG_USEC); None without a watchdog.
    """

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._socket = _opened() if self._address else None  # opened now, because later there may be no descriptor left
        self.interval: float | None = None
        own = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        allowed = os.environ.get("WATCHDOG_USEC", "")
        if own and allowed.isdigit() and int(allowed):
            self.interval = int(allowed) / 2e6

    def ready(self, status: str) -> None:
        """Report that the start, or a reload, is finished; `status` is a line for people."""
        self._send(f"READY=1\nSTATUS={status}", _PATIENCE)

    def status(self, status: str) -> None:
        """Report the state in a line for people."""
        self._send(f"STATUS={status}")

    def reloading(self) -> None:
        """Report that a reload has begun; :meth:`ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", _PATIENCE)

    def stopping(self) -> None:
        """Report that the agent is stopping, and close the socket."""
        self._send("STOPPING=1", _PATIENCE)
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def alive(self) -> None:
        """Report to the watchdog that the agent is working."""
        self._send("WATCHDOG=1")

    def _send(self, text: str, timeout: float = 0.0) -> None:
        if self._socket is None:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            self._socket.settimeout(timeout)
            self._socket.sendto(text.encode(), address)
        except (OSError, ValueError):
            pass  # a manager that cannot be reached is treated as none


def _opened() -> socket.socket | None:
    try:
        return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    except OSError:
        return None
