"""A raw packet socket on a link, which comes and goes with the link: the dependant that ships.

What the kernel does to frames between two links of one host, before a packet socket sees them
(packet_rcv, net/packet/af_packet.c):

* It takes an 802.1Q tag out (skb_vlan_untag) and tells of it beside the frame (PACKET_AUXDATA). Here it is put back.
* It leaves the work of a network card undone: TCP and UDP checksums are not filled in, segments not cut, for the other
  end might be able to take them as they are. The struct virtio_net_hdr that PACKET_VNET_HDR puts in front says so.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from struct import Struct
from typing import Final

from vethlib import ns
from vethlib.errors import LinkNotFound, NotPermitted
from vethlib.links import Link, describe
from vethlib.session import Session
from vethlib.session.refusal import system_errors

__all__ = ["PacketPort"]

# Linux only, and partly not in the socket module; named here so that this imports anywhere.
_AF_PACKET: Final = 17
_SOL_PACKET: Final = 263  # include/linux/socket.h
_PACKET_AUXDATA: Final = 8  # include/uapi/linux/if_packet.h
_PACKET_VNET_HDR: Final = 15
_PACKET_IGNORE_OUTGOING: Final = 23
_ETH_P_ALL: Final = 3  # include/uapi/linux/if_ether.h
_ETH_P_8021Q: Final = 0x8100

_AUXDATA: Final = Struct("=IIIHHHH")  # struct tpacket_auxdata
_VLAN_VALID: Final = 0x10  # TP_STATUS_VLAN_VALID
_VLAN_TPID_VALID: Final = 0x40
_CONTROL_SIZE: Final = 40  # CMSG_SPACE(sizeof(struct tpacket_auxdata))
_TAG: Final = Struct(">HH")
_TAG_AT: Final = 12  # behind both MAC addresses

_VNET_HDR: Final = Struct("=BBHHHH")  # struct virtio_net_hdr, include/uapi/linux/virtio_net.h
_NEEDS_CSUM: Final = 1

_LARGEST: Final = 65535 + 14 + 4 + 10
"""Of the MTU of a veth or of a segment yet to be cut, with its header, a tag and the struct in front."""

_LOST: Final = frozenset(
    (errno.EAGAIN, errno.ENOBUFS, errno.ENETDOWN, errno.ENXIO, errno.ENODEV, errno.EMSGSIZE)
)  # of packet_snd: no room, the link is down, it is gone, the frame is too long for it


class PacketPort:
    """Sends and receives whole Ethernet frames on a link, while the link is there and up.

        with Session() as session, Configurator(session, label="a") as configurator:
            port = PacketPort("eth0", "netns:blue", session=session)
            configurator.attach(port)

    The link is the one of that kernel name in the namespace that `netns` leads to. The socket is non-blocking. It is
    closed with the link, and has to be: open, it keeps the namespace alive. Opening takes 0.2 ms; closing 13 ms, for
    the kernel waits until nobody uses it (synchronize_net in packet_release). `on_attached(port)` is called when the
    socket is there, and `on_detached(port)` while it still is, to have it in a selector and out again.

    What arrives on the link is received, what the host itself sends through it is not. With `offload` each frame has a
    struct virtio_net_hdr of 10 bytes in front, received and sent (ten zeros for a frame that is complete). It says what
    a sender on this host has left undone; who forwards frames has to hand it on. Without, such frames come as they are:
    TCP and UDP checksums not filled in, and many segments in one.

    Raises NotPermitted without CAP_NET_RAW in the namespace, when it is attached.
    """

    def __init__(
        self,
        host_if_name: str,
        netns: str = "",
        *,
        session: Session,
        offload: bool = False,
        on_attached: Callable[[PacketPort], object] | None = None,
        on_detached: Callable[[PacketPort], object] | None = None,
    ) -> None:
        self.host_if_name = host_if_name
        self.netns = netns
        self.offload = offload
        self.on_attached = on_attached
        self.on_detached = on_detached
        self._session = session
        self._socket: socket.socket | None = None

    def __repr__(self) -> str:
        return f"<PacketPort {describe(self.host_if_name, self.netns)}{'' if self._socket else ', not attached'}>"

    # --- for who keeps the links

    def attached(self, link: Link) -> None:
        """Open the socket. Raises LinkNotFound, NetnsNotFound, NotPermitted, NetlinkError."""
        request = f"open a packet socket on {describe(link.name, self.netns)}"
        with self._session._places() as places, system_errors(request, self.netns):
            self._socket = ns.call_in(places(self.netns).fd, lambda: _opened(link, self.offload))
        try:
            if self.on_attached is not None:
                self.on_attached(self)
        except BaseException:
            self._close()
            raise

    def detached(self, _link: Link) -> None:
        """Close the socket."""
        try:
            if self.on_detached is not None and self._socket is not None:
                self.on_detached(self)
        finally:
            self._close()

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # --- for who uses it

    def fileno(self) -> int:
        """The descriptor, readable when there may be something to receive. Raises LinkNotFound while not attached."""
        if self._socket is None:
            message = f"{describe(self.host_if_name, self.netns)} is not attached: it is not there, or not up"
            raise LinkNotFound(message, errno=errno.ENODEV, netns=self.netns)
        return self._socket.fileno()

    def send(self, frame: bytes | bytearray | memoryview) -> bool:
        """Send one frame; False where it is lost, as on a wire: not attached, no room, or longer than the MTU.

        Raises OSError for what is no frame.
        """
        if self._socket is None:
            return False
        try:
            self._socket.send(frame)
        except OSError as error:
            if error.errno not in _LOST:
                raise
            return False
        return True

    def receive(self) -> bytes | None:
        """The next frame, None if there is none now."""
        while self._socket is not None:
            try:
                frame, control, flags, _ = self._socket.recvmsg(_LARGEST, _CONTROL_SIZE)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno != errno.ENETDOWN:
                    raise
                continue  # said once when the link goes down; what had arrived before is still there
            if not flags & socket.MSG_TRUNC:
                return _with_tag(frame, control[0][2], self.offload)
        return None


def _opened(link: Link, offload: bool) -> socket.socket:
    """A packet socket on the link, in the namespace that the calling thread is in."""
    try:
        # Of no protocol: it hears nothing, least of all from other links, before it is bound.
        opened = socket.socket(_AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
    except PermissionError as error:
        raise NotPermitted("this needs CAP_NET_RAW", errno=error.errno or errno.EPERM) from None
    try:
        for option in (_PACKET_IGNORE_OUTGOING, _PACKET_AUXDATA, *([_PACKET_VNET_HDR] if offload else ())):
            opened.setsockopt(_SOL_PACKET, option, 1)
        _bind(opened, link)
    except BaseException:
        opened.close()
        raise
    return opened


def _bind(opened: socket.socket, link: Link) -> None:
    # Python binds by name and the kernel by ifindex, so it may be another link of that name by now.
    try:
        opened.bind((link.name, _ETH_P_ALL))
        bound = socket.if_nametoindex(opened.getsockname()[0])
    except OSError as error:
        # Python 3.11 says "no interface with this name" without a number.
        if error.errno not in (None, errno.ENODEV, errno.ENXIO):
            raise
        bound = 0
    if bound != link.index:
        raise LinkNotFound(f"the link with ifindex {link.index} is not there any more", errno=errno.ENODEV)


def _with_tag(frame: bytes, auxdata: bytes, offload: bool) -> bytes:
    """The frame with the 802.1Q tag that the kernel took out."""
    status, _, _, _, _, tci, tpid = _AUXDATA.unpack(auxdata)
    if not status & _VLAN_VALID:
        return frame
    tag = _TAG.pack(tpid if status & _VLAN_TPID_VALID else _ETH_P_8021Q, tci)
    at = _TAG_AT
    if offload:
        frame = _moved_on(frame, len(tag))
        at += _VNET_HDR.size
    return frame[:at] + tag + frame[at:]


def _moved_on(frame: bytes, by: int) -> bytes:
    """With the places that its struct virtio_net_hdr names moved on."""
    flags, kind, headers, size, start, offset = _VNET_HDR.unpack_from(frame)
    if headers:
        headers += by
    if flags & _NEEDS_CSUM:
        start += by
    return _VNET_HDR.pack(flags, kind, headers, size, start, offset) + frame[_VNET_HDR.size :]
