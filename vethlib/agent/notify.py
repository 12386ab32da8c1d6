"""Telling the service manager how an agent does (sd_notify(3)), where there is one that listens."""

from __future__ import annotations

import os
import socket
import time

__all__ = ["Notifier"]


class Notifier:
    """Sends notifications to the socket that the environment names ($NOTIFY_SOCKET), or to nobody.

    `interval` is how often the watchdog is to be told, in seconds: half of what it allows ($WATCHDOG_USEC); None
    without one.
    """

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self.interval: float | None = None
        meant = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        allowed = os.environ.get("WATCHDOG_USEC", "")
        if meant and allowed.isdigit() and int(allowed):
            self.interval = int(allowed) / 2e6

    def ready(self, status: str) -> None:
        """Started, or done with a reload."""
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """A line for people."""
        self._send(f"STATUS={status}")

    def reloading(self) -> None:
        """A reload was asked for; :meth:`ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """On the way out."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """For the watchdog."""
        self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            try:
                to.sendto(text.encode(), address)
            except OSError:
                pass  # a manager that does not listen is as good as none
