"""Change answers of the kernel, whichever way a session asks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from tests.witness import ip
from vethlib import ns
from vethlib._nl.batch import Outcome
from vethlib._nl.sock import RtnlSocket
from vethlib.errors import error_class
from vethlib.ns import Descriptor
from vethlib.ns.opening import opened
from vethlib.session.core.namespaces import Namespaces, OpenNetns

Edit = Callable[[OpenNetns, Sequence[bytes], list[Outcome]], list[Outcome]]


def edit_answers(patch: pytest.MonkeyPatch, edit: Edit) -> None:
    """Let `edit` replace the outcomes of some requests in a namespace, given the real ones."""
    exchange, ask, dump = Namespaces.exchange, Namespaces.ask, Namespaces.dump
    change, change_and_ask = Namespaces.change, Namespaces.change_and_ask

    def edited_exchange(self: Namespaces, place: OpenNetns, requests: Sequence[bytes]) -> list[Outcome]:
        return edit(place, requests, exchange(self, place, requests))

    def edited_change(self: Namespaces, place: OpenNetns, requests: Sequence[bytes]) -> Sequence[Outcome]:
        return edit(place, requests, list(change(self, place, requests)))

    def edited_ask(self: Namespaces, place: OpenNetns, request: bytes) -> Outcome:
        return edit(place, [request], [ask(self, place, request)])[0]

    def edited_both(self: Namespaces, place: OpenNetns, change: bytes, question: bytes) -> Sequence[Outcome]:
        return edit(place, [change, question], list(change_and_ask(self, place, change, question)))

    def edited_dump(
        self: Namespaces, place: OpenNetns, request: bytes, parse: Callable[[bytes], Any], *rest: Any
    ) -> Outcome:
        return edit(place, [request], [dump(self, place, request, parse, *rest)])[0]

    patch.setattr(Namespaces, "exchange", edited_exchange)
    patch.setattr(Namespaces, "change", edited_change)
    patch.setattr(Namespaces, "ask", edited_ask)
    patch.setattr(Namespaces, "change_and_ask", edited_both)
    patch.setattr(Namespaces, "dump", edited_dump)


def refuse_all(patch: pytest.MonkeyPatch, outcome: Outcome) -> None:
    """Let every request have this outcome."""
    edit_answers(patch, lambda _place, requests, _outcomes: [outcome for _ in requests])


def refuse_opening(patch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Make opening the named namespace fail with this errno."""

    def refusing(path: str) -> Descriptor:
        if path == f"/run/netns/{name}":
            raise OSError(number, os.strerror(number))
        return opened(path)

    patch.setattr("vethlib.ns.reference.opened", refusing)


def refuse_inside(patch: pytest.MonkeyPatch, identity: tuple[int, int], number: int) -> None:
    """Refuse a socket in the namespace of that identity with this errno, even in home."""
    socket, open_sockets = Namespaces.socket, Namespaces.open_sockets

    def refusing(self: Namespaces, place: OpenNetns) -> RtnlSocket:
        if place.identity == identity:
            raise error_class(number)(f"refused: {os.strerror(number)}", errno=number)
        return socket(self, place)

    def open_others(self: Namespaces, places: Iterable[OpenNetns]) -> None:
        open_sockets(self, [place for place in places if place.identity != identity])

    patch.setattr(Namespaces, "socket", refusing)
    patch.setattr(Namespaces, "open_sockets", open_others)


def replace_with_same_number(name: str, patch: pytest.MonkeyPatch) -> None:
    """Remove a named namespace and create another with the inode number of the first, as often happens."""
    identity = ns.identity
    with ns.Netns.open(name) as before:
        ip("netns", "del", name)
        ip("netns", "add", name)
        with ns.Netns.open(name) as after:
            old, new = before.identity, after.identity
    patch.setattr(ns, "identity", lambda fd: old if identity(fd) == new else identity(fd))
