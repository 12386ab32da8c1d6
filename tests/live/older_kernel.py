"""Simulate what kernels before a certain version do not do."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from struct import pack_into, unpack_from
from types import ModuleType
from typing import Any, Final

import pytest

from vethlib import _primitives as primitives
from vethlib import addresses
from vethlib._nl import addr, link
from vethlib._nl.batch import Outcome
from vethlib._nl.const import IFLA_ALT_IFNAME, RTM_GETLINK, RTM_SETLINK
from vethlib.endfields.table import Step
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.read import reading
from vethlib.session.write import addressing, renew, setting
from vethlib.session.write.creating import configuring, job
from vethlib.session.write.linksteps import LinkSteps


def without_echo(monkeypatch: pytest.MonkeyPatch, user: ModuleType = job) -> None:
    """Behave as before Linux 6.2 in the module that creates pairs."""
    create_veth = link.create_veth

    def silent(*args: Any) -> bytes:
        message = bytearray(create_veth(*args))
        message[6] &= ~0x8
        return bytes(message)

    monkeypatch.setattr(user, "create_veth", silent)


def renamed_only_while_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behave as before Linux 6.2: the first attempt to rename a link that is up is refused."""
    send = LinkSteps._send
    busy = iter([True])

    def sending(self: LinkSteps, steps: Sequence[Step]) -> list[Outcome]:
        if steps[0].what.startswith("name ") and next(busy, False):
            return [Outcome(errno.EBUSY)]
        return send(self, steps)

    monkeypatch.setattr(LinkSteps, "_send", sending)


def without_owner_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behave as before Linux 5.18: no address has an IFA_PROTO, not even the kernel's own."""
    new_addr, restore_addr, to_address = addr.new_addr, addr.restore_addr, reading.to_address

    def unmarked(index: int, address: bytes, prefixlen: int, proto: int = 0, **how: Any) -> bytes:
        return new_addr(index, address, prefixlen, 0, **how)

    monkeypatch.setattr(addresses, "kernel_marks_owners", lambda: False)
    monkeypatch.setattr(reading, "to_address", lambda message: to_address(message._replace(proto=0)))
    monkeypatch.setattr(
        addressing, "restore_addr", lambda message, index: restore_addr(message._replace(proto=0), index)
    )
    for module in (addressing, configuring, renew):
        monkeypatch.setattr(module, "new_addr", unmarked)


def with_einval_for_a_taken_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse moving a link to a namespace where its name is taken in the way of Linux 5.10."""
    exchange = Namespaces.exchange

    def refused(self: Namespaces, place: OpenNetns, requests: Sequence[bytes]) -> list[Outcome]:
        outcomes = exchange(self, place, requests)
        return [Outcome(errno.EINVAL) if each.errno == errno.EEXIST else each for each in outcomes]

    monkeypatch.setattr(Namespaces, "exchange", refused)


_UNKNOWN: Final = 0x3000  # no attribute has that type


class _WithoutAlternativeNames(socket.SocketType):
    """A netlink socket that asks by an attribute which no kernel knows, instead of an alternative name."""

    def send(self, data: bytes | bytearray, *flags: int) -> int:  # type: ignore[override]
        requests, start = bytearray(data), 0
        while start < len(requests):
            length, kind = unpack_from("=IH", requests, start)
            is_named = kind in (RTM_GETLINK, RTM_SETLINK) and length >= 36
            if is_named and unpack_from("=H", requests, start + 34)[0] == IFLA_ALT_IFNAME:
                pack_into("=H", requests, start + 34, _UNKNOWN)
            start += (length + 3) & ~3
        return super().send(requests, *flags)


def without_alternative_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behave as before Linux 5.5: a message with IFLA_ALT_IFNAME is invalid (EINVAL)."""
    monkeypatch.setattr(primitives.socket, "SocketType", _WithoutAlternativeNames)


def without_alternative_names_in_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As before Linux 5.19: the message that changes a link finds none by a name that only IFLA_ALT_IFNAME can have."""
    set_attribute = link.set_attribute

    def unknown(index: int, name: bytes, *how: Any) -> bytes:
        return set_attribute(index, b"nobody's-alternative-name" if len(name) > 15 else name, *how)

    monkeypatch.setattr(setting, "set_attribute", unknown)
