"""Ends that leave nothing to a network card: their features, and the completeness of their packets."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from tests.live.offloads import offloads, set_offload
from tests.refusing import raises
from tests.witness import host_state, names
from vethlib import End, InvalidValue, NetlinkError, NotPermitted, Session, Veth
from vethlib.endfields import offload as words

OFF = dict.fromkeys(("rx", "tx", "sg", "tso", "gso", "gro"), False)
MIXED = ("+rx-gro", "-tx-checksum-sctp", "-tx-tcp6-segmentation")


@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize(("a", "b"), [("", "blue"), ("blue", "blue"), ("blue", "red")])
def test_it_is_off_from_creation_and_as_usual_on_the_peer(
    session: Session, blue: str, red: str, a: str, b: str, up: bool, read: bool
) -> None:
    session.create(Veth(End("plain", "red"), End("plain2", "red")))
    session.create(Veth(End("va", a, offload=False, up=up), End("vb", b, up=up)), read=read)
    assert offloads("va", a) == OFF
    assert offloads("vb", b) == offloads("plain", "red") != OFF
    assert session.fields("va", a)["offload"] is False


def test_it_is_switched_off_and_on_again(session: Session, blue: str) -> None:
    session.create(Veth(End("va", "blue"), End("vb", "blue")))
    usual = offloads("va", "blue")
    session.set("va", "blue", offload=False)
    assert offloads("va", "blue") == OFF
    session.set("va", "blue", offload=True)
    assert offloads("va", "blue") == {**usual, "gro": False}
    assert session.fields("va", "blue")["offload"] is True


def test_a_mixture_is_read_and_can_be_had_again(session: Session, blue: str) -> None:
    session.create(Veth(End("va", "blue", offload=MIXED), End("vb", "blue")))
    assert session.fields("va", "blue")["offload"] == MIXED
    assert offloads("va", "blue")["gro"]
    set_offload("va", "blue", "tso", on=False)
    mixture = session.fields("va", "blue")["offload"]
    assert set(mixture) > set(MIXED)
    before = offloads("va", "blue")
    session.set("va", "blue", offload=False)
    session.set("va", "blue", offload=mixture)
    assert (session.fields("va", "blue")["offload"], offloads("va", "blue")) == (mixture, before)


@pytest.mark.parametrize("before", [True, False, MIXED])
def test_a_change_that_is_refused_leaves_it_as_it_was(session: Session, blue: str, before: Any) -> None:
    session.create(Veth(End("va", "blue", offload=before), End("vb", "blue")))
    seen = session.fields("va", "blue")["offload"], offloads("va", "blue")
    with pytest.raises(NetlinkError):
        session.set("va", "blue", new_name="vc", offload=before is not True, sysctls={"no_such_setting": "1"})
    assert (session.fields("va", "blue")["offload"], offloads("va", "blue")) == seen


def test_what_is_switched_by_a_rename_is_switched(session: Session, blue: str) -> None:
    session.create(Veth(End("va", "blue"), End("vb", "blue")))
    session.set("va", "blue", new_name="vc", mtu=1400, offload=False)
    assert offloads("vc", "blue") == OFF


def test_a_pair_is_not_created_if_the_kernel_refuses_it(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "no")

    monkeypatch.setattr("vethlib.session.core.features.fcntl.ioctl", refused)
    with raises(NotPermitted, errno=errno.EPERM):
        session.create(Veth(End("va", "blue", offload=False), End("vb")))
    assert (names("blue"), names()) == (set(), set())
    session.create(Veth(End("va", "blue"), End("vb")))
    before = host_state()
    with pytest.raises(NotPermitted) as caught:
        session.set("va", "blue", offload=False, mtu=1400)
    assert caught.value.netns == "blue"
    assert host_state() == before


def test_it_costs_no_entry_into_a_namespace_and_nothing_where_it_is_not_used(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    monkeypatch.setattr("vethlib.session.core.features._Features.__init__", lambda *_: opened.append(1))
    session.create(Veth(End("va", "blue", txqlen=7), End("vb")))
    session.set("va", "blue", mtu=1400, txqlen=5)
    assert opened == []


@pytest.mark.parametrize(
    "value", ["off", 0, 1, ["rx-gro"], ["+tx-checksum-ip-generic"], ["-rx-gro"], ["-loopback"], [7]]
)
def test_a_value_that_makes_no_sense_is_refused(value: Any) -> None:
    with pytest.raises(InvalidValue) as refused:
        End("va", offload=value)
    assert refused.value.field == "offload"


@pytest.mark.parametrize("wanted", [True, False, MIXED])
@pytest.mark.parametrize("present", [True, False, MIXED, ("+rx-gro",)])
def test_the_features_for_a_value_are_read_as_that_value(present: Any, wanted: Any) -> None:
    existing = ["highdma", "rx-gro", "tx-checksum-ip-generic", "tx-checksum-sctp", "tx-tcp6-segmentation"]
    assert words.check_offload(wanted) == wanted
    was = words.features_of(existing, present) if present is not True else {"rx-gro": False}
    now = dict.fromkeys(existing, True) | was | words.features_of(existing, wanted)
    result = words.offload_of(existing, [name for name, on in now.items() if on])
    assert words.target_of(result, wanted) == result


def frames(session: Session, offload: bool | None) -> list[int]:
    """The lengths of the frames that arrive when much is sent over TCP to a listener on the peer."""
    session.create(
        Veth(
            End("va", "blue", addresses=["10.0.0.1/24"], offload=offload, ipv6=False),
            End("vb", "red", addresses=["10.0.0.2/24"], ipv6=False),
        ),
        wait=60.0,
    )
    with (
        session.socket("red", socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as tap,
        session.socket("red") as listener,
        session.socket("blue") as client,
    ):
        for each in (tap, listener, client):
            each.settimeout(60)
        tap.bind(("vb", 0x0800))
        tap.setsockopt(263, 23, 1)  # PACKET_IGNORE_OUTGOING
        listener.bind(("10.0.0.2", 0))
        listener.listen()
        client.connect(listener.getsockname())
        with listener.accept()[0] as server:
            server.settimeout(60)
            client.sendall(bytes(40_000))
            left = 40_000
            while left:
                left -= len(server.recv(left))
        tap.setblocking(False)
        lengths = []
        try:
            while True:
                lengths.append(len(tap.recv(1 << 17)))
        except BlockingIOError:
            return lengths


def test_frames_fit_the_mtu(session: Session, blue: str, red: str) -> None:
    assert max(frames(session, False)) <= 1514
    session.delete("va", "blue")
    assert max(frames(session, None)) > 1514
