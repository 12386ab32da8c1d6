"""A kernel in which protocols other than IP have addresses, too: a dump of all families has them (rtnl_dump_all).

Kernels are rarely built with such a protocol, so the addresses are added to what the kernel sends.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import closing
from struct import pack, unpack_from

import pytest

from tests.witness import ip
from vethlib import End, IfIndexCache, Session, Veth, addresses
from vethlib import _primitives as primitives
from vethlib._nl.wire import attribute

RTM_NEWADDR = 20
MCTP, PHONET, DECNET = 45, 35, 12
IFA_ADDRESS, IFA_LOCAL = 1, 2


class WithOtherFamilies(socket.SocketType):
    """A netlink socket that receives addresses of other families before those of IP; it is called as the original."""

    def recv(self, *arguments: int) -> bytes:
        datagram = super().recv(*arguments)
        if len(datagram) < 16 or unpack_from("=H", datagram, 4)[0] != RTM_NEWADDR or datagram[16] in OTHERS:
            return datagram
        _length, kind, flags, sequence, port = unpack_from("=IHHII", datagram)
        (index,) = unpack_from("=I", datagram, 20)
        bodies = [pack("=BBBBI", family, 0, 0, 0, index) + attributes for family, attributes in OTHERS.items()]
        others = [pack("=IHHII", 16 + len(body), kind, flags, sequence, port) + body for body in bodies]
        return b"".join(others) + datagram


OTHERS = {
    MCTP: attribute(IFA_LOCAL, b"\x08"),
    PHONET: attribute(IFA_LOCAL, b"\x6c"),
    DECNET: attribute(IFA_ADDRESS, b"\1\4") + attribute(IFA_LOCAL, b"\1\4"),
}


def look_up(session: Session) -> object:
    return session.lookup("b", "blue").addresses


def list_links(session: Session) -> object:
    return [(link.name, link.addresses) for link in session.links("blue")]


def survey(session: Session) -> object:
    return [(one.link.name, one.link.addresses) for one in session.survey(["", "blue"]).links]


def inspect(session: Session) -> object:
    return [(one.link.name, one.link.addresses) for one in session.inspect([("blue", "b")]).links]


def take_fingerprints(session: Session) -> object:
    taken = session.fingerprints(["", "blue"])
    assert taken == session.survey(["", "blue"], fingerprints=True).fingerprints
    return taken


def watch(session: Session) -> object:
    with closing(IfIndexCache(session, addresses=True)) as cache:
        (first,) = cache.watch_and_read(["blue"]).values()
        return sorted(first.addresses)


def change(session: Session) -> object:
    session.set("b", "blue", addresses=["10.0.0.2/24", "10.0.0.3/24"])
    return session.set("b", "blue", addresses=["10.0.0.1/24"]).addresses


LOOKS = [look_up, list_links, survey, inspect, take_fingerprints, watch, change]


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.__name__)
def test_addresses_of_other_families_do_not_matter(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch, look: Callable[[Session], object]
) -> None:
    session.create(Veth(End("a", up=False, addresses=["10.0.1.1/24"]), End("b", "blue", addresses=["10.0.0.1/24"])))
    truth = look(session)
    monkeypatch.setattr(primitives.socket, "SocketType", WithOtherFamilies)
    with Session() as another:
        assert look(another) == truth


def test_nor_do_they_when_owner_marks_are_looked_for(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    ip("link", "set", "dev", "lo", "up")
    truth = addresses._is_loopback_marked()
    monkeypatch.setattr(primitives.socket, "SocketType", WithOtherFamilies)
    assert addresses._is_loopback_marked() == truth
