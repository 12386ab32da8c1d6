"""Features of a link (the field `offload` of an end), by the ioctl SIOCETHTOOL.

1. One ETHTOOL_SFEATURES changes all features at once, in 42 µs, most of which the kernel spends on notifying others.
   One command for each kind of offload, such as ETHTOOL_STXCSUM, takes 116 µs in total. The netlink family of ethtool
   (ETHTOOL_MSG_FEATURES_SET) takes 46 µs, and needs a generic netlink socket in each namespace, for another 14 µs.
2. An ioctl on any socket concerns the links of the socket's namespace (dev_ioctl, net/core/dev_ioctl.c), so the
   rtnetlink socket of the call is used, and no namespace is entered.
3. The bits of the features have different meanings on different kernels, so their names are read once.
"""

from __future__ import annotations

import fcntl
from array import array
from collections.abc import Mapping
from struct import Struct
from typing import Final

from vethlib._nl.batch import Outcome
from vethlib._nl.wire import encoded
from vethlib.endfields.offload import Offload, features_of, offload_of
from vethlib.errors import NetlinkError
from vethlib.links import describe

from .namespaces import Namespaces, OpenNetns
from .refusal import refusal

__all__ = ["read_offload", "write_offload"]

_SIOCETHTOOL: Final = 0x8946  # include/uapi/linux/sockios.h
# include/uapi/linux/ethtool.h
_GSTRINGS: Final = 0x1B
_GSSET_INFO: Final = 0x37
_GFEATURES: Final = 0x3A
_SFEATURES: Final = 0x3B
_SS_FEATURES: Final = 4

_IFREQ: Final = Struct("=16sQ16x")
_SET_INFO: Final = Struct("=IIQI")  # struct ethtool_sset_info with the length of one set
_STRINGS: Final = Struct("=III")  # struct ethtool_gstrings, without them
_NAME: Final = 32  # bytes: ETH_GSTRING_LEN
_HEAD: Final = Struct("=II")  # struct ethtool_gfeatures and ethtool_sfeatures, without the blocks
_GET_BLOCK: Final = Struct("=IIII")  # available, requested, active, never changed
_SET_BLOCK: Final = Struct("=II")  # valid, requested


_SPACE: Final = 1 << 16
"""No kernel reports more features than this."""


class _Features:
    """The features of one link."""

    def __init__(self, namespaces: Namespaces, place: OpenNetns, name: str) -> None:
        self._socket = namespaces.socket(place).fileno()
        self._link = encoded(name)

    def ask(self, command: bytes) -> bytes:
        """Send a command, and return it as the kernel has filled it in. Raises OSError."""
        buffer = array("B", command)
        fcntl.ioctl(self._socket, _SIOCETHTOOL, _IFREQ.pack(self._link, buffer.buffer_info()[0]))
        return buffer.tobytes()

    @property
    def names(self) -> list[str]:
        """The name of each bit, which is the same for all links."""
        if not _names:
            count = min(_SET_INFO.unpack(self.ask(_SET_INFO.pack(_GSSET_INFO, 0, 1 << _SS_FEATURES, 0)))[3], _SPACE)
            raw = self.ask(_STRINGS.pack(_GSTRINGS, _SS_FEATURES, count) + bytes(_NAME * count))[_STRINGS.size :]
            parts = (raw[start : start + _NAME] for start in range(0, len(raw), _NAME))
            _names[:] = [part.split(b"\0")[0].decode("ascii", "replace") for part in parts]
        return _names

    def read(self) -> tuple[list[str], list[str]]:
        """Return the features that can be switched, and those that are on.

        "On" means requested: a peer with an XDP program keeps some features from being active (veth_fix_features).
        """
        blocks = -(-len(self.names) // 32)
        answer = self.ask(_HEAD.pack(_GFEATURES, blocks) + bytes(_GET_BLOCK.size * blocks))
        available, requested = 0, 0
        for number, block in enumerate(_GET_BLOCK.iter_unpack(answer[_HEAD.size :])):
            available |= block[0] << 32 * number
            requested |= block[1] << 32 * number
        existing = [(bit, name) for bit, name in enumerate(self.names) if available >> bit & 1]
        return [name for _, name in existing], [name for bit, name in existing if requested >> bit & 1]

    def switch(self, wanted: Mapping[str, bool]) -> None:
        """Switch features on and off."""
        valid = sum(1 << bit for bit, name in enumerate(self.names) if name in wanted)
        requested = sum(1 << bit for bit, name in enumerate(self.names) if wanted.get(name))
        blocks = range(0, len(self.names), 32)
        words = (_SET_BLOCK.pack(valid >> bit & 0xFFFF_FFFF, requested >> bit & 0xFFFF_FFFF) for bit in blocks)
        self.ask(_HEAD.pack(_SFEATURES, len(blocks)) + b"".join(words))


_names: list[str] = []


def read_offload(namespaces: Namespaces, place: OpenNetns, name: str) -> Offload:
    """Read the offload of a link in `place`. Raises NetlinkError."""
    try:
        return offload_of(*_Features(namespaces, place, name).read())
    except OSError as error:
        raise _error(error, f"read the offload of {describe(name, place.ref)}", place) from error


def write_offload(namespaces: Namespaces, place: OpenNetns, name: str, offload: Offload) -> None:
    """Change the offload of a link in `place`. Raises NetlinkError."""
    try:
        features = _Features(namespaces, place, name)
        existing, on = features.read()
        wanted = features_of(existing, offload)
        if any((feature in on) != given for feature, given in wanted.items()):
            features.switch(wanted)
    except OSError as error:
        raise _error(error, f"set {describe(name, place.ref)} offload", place) from error


def _error(error: OSError, request: str, place: OpenNetns) -> NetlinkError:
    return refusal(Outcome(error.errno or 0), request, place.ref)
