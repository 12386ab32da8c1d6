"""Read and set checksum and segmentation offload with the commands that existed before features had names."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from array import array
from contextlib import nullcontext

from vethlib import ns

# include/uapi/linux/ethtool.h: one command reads each, and the next number sets it
_COMMANDS = {"rx": 0x14, "tx": 0x16, "sg": 0x18, "tso": 0x1E, "gso": 0x23, "gro": 0x2B}


def offloads(name: str, netns: str = "") -> dict[str, bool]:
    """Return what a link leaves to a network card, by the names of `ethtool -K`."""
    return {kind: bool(_command(name, netns, command, 0)) for kind, command in _COMMANDS.items()}


def set_offload(name: str, netns: str, kind: str, *, on: bool) -> None:
    """Do the same as `ethtool -K NAME KIND on|off`."""
    _command(name, netns, _COMMANDS[kind] + 1, int(on))


def _command(name: str, netns: str, command: int, value: int) -> int:
    given = array("I", [command, value])
    request = struct.pack("=16sQ16x", os.fsencode(name), given.buffer_info()[0])
    with ns.entered(netns) if netns else nullcontext(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        fcntl.ioctl(asking, 0x8946, request)
    return given[1]
