"""Malformed answers are errors of the call, which name the link, and leave nothing behind."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from tests.live.answers import edit_answers, refuse_all
from tests.witness import names, nothing_changes
from vethlib import End, NetlinkError, Session, Veth
from vethlib._nl import trace
from vethlib._nl.batch import Outcome
from vethlib._nl.link import LinkMessage, get_link, parse_link
from vethlib.errors import Malformed
from vethlib.session.write.creating import building, job

CALLS: dict[str, Callable[[Session], object]] = {
    "index": lambda session: session.index("va", "blue"),
    "lookup": lambda session: session.lookup("va", "blue"),
    "details": lambda session: session.details("va", "blue"),
    "stats": lambda session: session.stats("va", "blue"),
    "set": lambda session: session.set("va", "blue", up=True),
    "move": lambda session: session.move("va", "blue", to=""),
    "lookup_many": lambda session: session.lookup_many([("va", "blue"), ("va", "blue")]),
    "stats_many": lambda session: session.stats_many([("va", "blue"), ("va", "blue")]),
    "delete": lambda session: session.delete("va", "blue"),
}


@pytest.mark.parametrize("bodies", [(), (b"\0" * 3,)], ids=["an acknowledgement", "three bytes"])
@pytest.mark.parametrize("call", CALLS)
def test_an_answer_that_is_no_link_is_an_error(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch, call: str, bodies: tuple[bytes, ...]
) -> None:
    session.create(Veth(End("va", blue, up=False), End("vb", up=False)))
    with nothing_changes(), monkeypatch.context() as patch:
        refuse_all(patch, Outcome(0, "", bodies))
        with pytest.raises(NetlinkError) as caught:
            CALLS[call](session)
    assert (caught.value.errno, caught.value.netns) == (errno.EBADMSG, "blue")


def test_counters_that_make_no_sense_are_an_error(session: Session, blue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    session.create(Veth(End("va", blue), End("vb")))
    kind = get_link(1)[4:6]  # of the request that is answered as it should be
    edit_answers(
        monkeypatch,
        lambda _place, requests, outcomes: [
            outcome if request[4:6] == kind else Outcome(0, "", (b"",))
            for request, outcome in zip(requests, outcomes, strict=True)
        ],
    )
    with pytest.raises(NetlinkError) as caught:
        session.stats("va", "blue")
    assert (caught.value.errno, caught.value.netns) == (errno.EBADMSG, "blue")
    assert "counters" in caught.value.request


def test_details_that_pyroute2_cannot_decode_are_an_error(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.create(Veth(End("va", blue), End("vb")))

    def fail(_: bytes) -> list[dict[str, object]]:
        raise KeyError("of a bug")

    monkeypatch.setattr(trace, "decode", fail)
    with pytest.raises(NetlinkError) as caught:
        session.details("va", "blue")
    assert caught.value.errno == errno.EBADMSG
    assert "KeyError" in caught.value.extack


@pytest.mark.needs_kernel("6.2")
def test_an_echo_that_makes_no_sense_is_replaced_by_a_look(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_fails(body: bytes) -> LinkMessage:
        monkeypatch.undo()
        raise Malformed("an echo")

    monkeypatch.setattr(job, "parse_link", first_fails)
    pair = session.create(Veth(End("va", blue), End("vb")))
    assert (pair.a.index, pair.b.index) == (session.index("va", blue), session.index("vb"))
    assert pair.a.peer_index == pair.b.index


def test_a_pair_that_cannot_be_read_is_taken_back(session: Session, blue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []

    def fails_after_the_echo(body: bytes) -> LinkMessage:
        parsed.append(body)
        if len(parsed) > 1:
            raise Malformed("a link")
        return parse_link(body)

    for module in (building, job):
        monkeypatch.setattr(module, "parse_link", fails_after_the_echo)
    with pytest.raises(NetlinkError) as caught:
        session.create(Veth(End("va", blue), End("vb")))
    assert caught.value.errno == errno.EBADMSG
    assert "va" not in names("blue")
    assert "vb" not in names()
