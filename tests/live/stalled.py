"""Pipes, sockets and terminals that nobody reads, and that accept no more output."""

from __future__ import annotations

import fcntl
import os
import socket
import termios

__all__ = ["full_pipe", "full_socket", "stopped_terminal"]


def full_pipe() -> tuple[int, int]:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.write(write, b"\n" * 4096)
    return read, write


def full_socket() -> tuple[int, int]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    try:
        while True:
            theirs.send(b"\n" * 1024)
    except BlockingIOError:
        theirs.setblocking(True)
    return ours.detach(), theirs.detach()


def stopped_terminal() -> tuple[int, int]:
    ours, theirs = os.openpty()
    termios.tcflow(theirs, termios.TCOOFF)  # as Ctrl-S does
    return ours, theirs
