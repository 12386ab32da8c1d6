"""Namespace ids on the wire, with pyroute2 as a second opinion."""

from __future__ import annotations

import errno
import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from tests.refusing import raises
from vethlib._nl import nsid
from vethlib._nl.const import NETNSA_TARGET_NSID
from vethlib.errors import Malformed

ids = st.integers(0, 0x7FFF_FFFF)


def decode(message: bytes) -> Any:
    (decoded,) = MarshalRtnl().parse(message)
    return decoded


@given(st.integers(0, 65535), ids)
def test_a_request_to_give_an_id_has_the_namespace_and_the_number(fd: int, number: int) -> None:
    decoded = decode(nsid.new_nsid(fd, number))
    assert (decoded["header"]["type"], decoded["header"]["flags"]) == (88, 1)
    assert (decoded.get_attr("NETNSA_FD"), decoded.get_attr("NETNSA_NSID")) == (fd, number)


@given(ids, ids)
def test_a_request_to_translate_an_id_has_both(number: int, target: int) -> None:
    message = nsid.translate_nsid(number, target)
    decoded = decode(message)
    assert (decoded["header"]["type"], decoded["header"]["flags"]) == (90, 1)
    assert decoded.get_attr("NETNSA_NSID") == number
    assert message[-8:] == struct.pack("=HHi", 8, NETNSA_TARGET_NSID, target)


@given(ids, ids)
def test_of_an_answer_the_id_asked_for_is_read(number: int, other: int) -> None:
    body = nsid.translate_nsid(number, other)[16:]
    assert nsid.parse_nsid(body) == number


def test_a_message_without_an_id_is_malformed() -> None:
    with raises(Malformed, errno=errno.EBADMSG):
        nsid.parse_nsid(nsid.get_nsid(7)[16:])
