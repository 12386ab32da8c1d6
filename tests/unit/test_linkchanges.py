"""The meaning of link changes, as reported by events, for interfaces."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from vethlib._nl.addr import AddrMessage
from vethlib.addresses import identity_of
from vethlib.agent import Interface
from vethlib.agent.config import model
from vethlib.agent.reconcile import linkchanges
from vethlib.agent.reconcile.linkchanges import Interpreter
from vethlib.ifindex.changes import LinkChanges

HOME, PLACE = (4, 1), (4, 2)
INDEX = 2


class Watched:
    """A watched namespace."""

    inode = PLACE[1]
    is_over = False


def changed(*addresses: str, added: bool = True) -> LinkChanges:
    watch: Any = Watched()
    packed = [socket.inet_aton(address) for address in addresses]
    messages = {(each, 24, b""): (AddrMessage(INDEX, each, 24, 0x80, 0, b"", b""), added) for each in packed}
    changes = LinkChanges()
    changes.addresses = {(watch, INDEX): messages}
    return changes


def interpreter(interface: Interface) -> Interpreter:
    watches = SimpleNamespace(refs={PLACE: {"netns:blue": None}})
    observer: Any = SimpleNamespace(watches=watches, built_for=lambda *_: interface.name)
    desired: Any = SimpleNamespace(interfaces={interface.name: interface})
    record: Any = None
    return Interpreter(observer, desired, "label", HOME, record, lambda *_: True)


def configured(number: int) -> Interface:
    return Interface("b", "a", ip_addresses=tuple(f"10.{each // 250}.{each % 250}.1/24" for each in range(number)))


def test_only_the_removal_of_an_address_that_is_configured_is_drift() -> None:
    for address, drifted in (("10.0.0.1", {"b"}), ("10.0.249.1", {"b"}), ("172.16.0.1", set())):
        assert interpreter(configured(250)).interpret(changed(address, added=False)).drifted == drifted


def test_the_work_for_an_event_of_an_address_does_not_depend_on_how_many_are_configured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = 0

    def counted(given: Any) -> Any:
        nonlocal compared
        compared += 1
        return identity_of(given)

    def work_for_events(number: int) -> int:
        nonlocal compared
        interface, compared = configured(number), 0
        for each in range(20):
            interpreter(interface).interpret(changed(f"172.16.0.{each + 1}", f"172.16.1.{each + 1}"))
        return compared

    for module in (model, linkchanges):
        monkeypatch.setattr(module, "identity_of", counted, raising=False)
    assert work_for_events(500) <= 500
    assert work_for_events(1000) <= 1000
