"""Pairs that a failed call takes back although other programs have moved their ends away meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.live.older_kernel import without_echo
from tests.live.reused_identity import replaced
from tests.witness import ip, names, peer_of, rename, seen
from vethlib import BatchError, End, LinkExists, Session, Veth, ns
from vethlib.session.read.dying import Patience

SLAB = 64


def away(name: str, netns: str) -> None:
    ip("link", "set", "dev", name, "netns", "green", netns=netns)


def both(*actions: Callable[[], object]) -> Callable[[], object]:
    return lambda: [action() for action in actions]


@pytest.fixture
def green(make_netns: Callable[..., None]) -> str:
    make_netns("green")
    return "green"


def failing(first: list[Veth]) -> list[Veth]:
    """These pairs, others that fill the slab, and a pair that fails in the next slab."""
    others = [Veth(End(f"a{n}", "red"), End(f"b{n}", "red")) for n in range(SLAB - len(first))]
    return [*first, *others, Veth(End("taken", "red"), End("z", "red"))]


@pytest.fixture
def taken(session: Session, blue: str, red: str, green: str) -> None:
    session.create(Veth(End("taken", red), End("taken2", red)))


RENAME = partial(rename, "x", "eth0", "blue")
MOVES: dict[str, Callable[[], object]] = {
    "the first end": partial(away, "x", "blue"),
    "its peer": partial(away, "y", "red"),
    "the first end, renamed": both(RENAME, partial(away, "eth0", "blue")),
    "the first end, with its namespace gone": both(partial(away, "x", "blue"), partial(ns.remove, "blue")),
    "several": both(partial(away, "x", "blue"), partial(away, "v", "red")),
}


@pytest.mark.usefixtures("taken")
@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("together", [False, True])
def test_pairs_whose_end_was_moved_away_are_deleted_by_the_other(session: Session, move: str, together: bool) -> None:
    def made(new: list[Any]) -> None:
        MOVES[move]()

    veths = [Veth(End("x", "blue"), End("y", "red")), Veth(End("v", "red"), End("w", "blue"))]
    with pytest.raises(LinkExists) as caught:
        session.create_many(failing(veths), made=made, together=together)
    assert getattr(caught.value, "__notes__", []) == []
    assert (names("red"), names("green")) == ({"taken", "taken2"}, set())
    assert "blue" not in ns.names() or names("blue") == set()


@pytest.mark.usefixtures("taken")
@pytest.mark.parametrize("move", ["the first end", "its peer"])
def test_an_interruption_takes_them_back_too(session: Session, move: str) -> None:
    def stop(*_: object) -> None:
        MOVES[move]()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        session.create_many([Veth(End("x", "blue"), End("y", "red"))], progress=stop)
    assert getattr(caught.value, "__notes__", []) == []
    assert names("blue") == names("green") == set()
    assert names("red") == {"taken", "taken2"}


@pytest.mark.usefixtures("taken")
def test_a_link_of_others_that_has_the_ifindex_of_an_end_stays(session: Session) -> None:
    def stop(*_: object) -> None:
        index = str(session.index("x", "blue"))
        away("x", "blue")
        ip("link", "add", "name", "theirs", "index", index, "type", "bridge", netns="blue")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.create_many([Veth(End("x", "blue"), End("y", "red"))], progress=stop)
    assert (names("blue"), names("green"), names("red")) == ({"theirs"}, set(), {"taken", "taken2"})


@pytest.mark.usefixtures("taken")
def test_a_pair_of_which_neither_namespace_can_be_found_is_noted(session: Session) -> None:
    with ns.Netns.open("blue"), ns.Netns.open("red"):

        def stop(*_: object) -> None:
            replaced("blue")
            replaced("red")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt) as caught:
            session.create_many([Veth(End("x", "blue"), End("y", "red"))], progress=stop)
        assert len(caught.value.__notes__) == 1
        assert "netns:red" in caught.value.__notes__[0]


@pytest.mark.usefixtures("taken")
def test_a_pair_that_its_tenant_has_deleted_is_not_missed(session: Session) -> None:
    def stop(*_: object) -> None:
        ip("link", "del", "dev", "y", netns="red")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        session.create_many([Veth(End("x", "blue"), End("y", "red"))], progress=stop)
    assert getattr(caught.value, "__notes__", []) == []


# --- pairs that others have deleted, with links of theirs in the place


def in_their_place(*ends: tuple[str, str]) -> None:
    """Delete the pair with these ends, and create a veth with the ifindex of each; the peer of one is in green."""
    index = {netns: seen(name, netns)["ifindex"] for name, netns in ends}
    peer = {netns: peer_of(seen(name, netns), netns)[0] for name, netns in ends}
    name, netns = ends[0]
    ip("link", "del", "dev", name, netns=netns)
    for netns, number in index.items():
        theirs = ["name", "theirs", "index", str(number), "type", "veth"]
        its_peer = ["name", f"of_{netns}", "index", str(peer[netns]), "netns", "green"]
        ip("link", "add", *theirs, "peer", *its_peer, netns=netns)
        peer = dict.fromkeys(index, 99)


PLACES = [("", "blue"), ("blue", ""), ("blue", "red")]


@pytest.mark.usefixtures("taken")
@pytest.mark.parametrize("echo", [True, False])
@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize("places", PLACES)
def test_veths_of_others_in_the_place_of_a_pair_that_they_have_deleted_stay(
    session: Session, monkeypatch: pytest.MonkeyPatch, places: tuple[str, str], read: bool, echo: bool
) -> None:
    if not echo:
        without_echo(monkeypatch)

    def stop(*_: object) -> None:
        in_their_place(*zip("xy", places, strict=True))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        session.create_many([Veth(End("x", places[0]), End("y", places[1]))], progress=stop, read=read)
    assert getattr(caught.value, "__notes__", []) == []
    assert [names(netns) - {"taken", "taken2"} for netns in places] == [{"theirs"}] * 2
    assert names("green") == {f"of_{netns}" for netns in places}


@pytest.mark.usefixtures("taken")
@pytest.mark.parametrize("on_error", ["rollback", "continue"])
@pytest.mark.parametrize("places", PLACES)
def test_they_stay_if_it_was_deleted_while_the_name_of_another_pair_was_waited_for(
    session: Session, monkeypatch: pytest.MonkeyPatch, places: tuple[str, str], on_error: Any
) -> None:
    freed = Patience.freed

    def meanwhile(*args: Any) -> Any:
        in_their_place(*zip("xy", places, strict=True))
        return freed(*args)

    monkeypatch.setattr(Patience, "freed", meanwhile)
    veths = [Veth(End("x", places[0]), End("y", places[1])), Veth(End("taken", "red"), End("z"))]
    with pytest.raises(LinkExists if on_error == "rollback" else BatchError):
        session.create_many(veths, on_error=on_error)
    assert [names(netns) - {"taken", "taken2"} for netns in places] == [{"theirs"}] * 2
    assert names("green") == {f"of_{netns}" for netns in places}


@pytest.mark.usefixtures("taken")
@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("end", "xy")
def test_a_pair_is_deleted_whose_end_gets_another_ifindex_while_a_name_is_waited_for(
    session: Session, monkeypatch: pytest.MonkeyPatch, places: tuple[str, str], end: str
) -> None:
    netns = dict(zip("xy", places, strict=True))[end]
    freed = Patience.freed

    def meanwhile(*args: Any) -> Any:
        ip("link", "add", "name", "br", "index", str(seen(end, netns)["ifindex"]), "type", "bridge", netns="green")
        away(end, netns)
        return freed(*args)

    monkeypatch.setattr(Patience, "freed", meanwhile)
    with pytest.raises(LinkExists):
        session.create_many([Veth(End("x", places[0]), End("y", places[1])), Veth(End("taken", "red"), End("z"))])
    assert (names("green"), names(), names("blue"), names("red")) == ({"br"}, set(), set(), {"taken", "taken2"})


@pytest.mark.usefixtures("taken")
@pytest.mark.parametrize("places", PLACES)
def test_a_pair_is_deleted_whose_macs_others_have_changed(session: Session, places: tuple[str, str]) -> None:
    def stop(*_: object) -> None:
        for number, (name, netns) in enumerate(zip("xy", places, strict=True)):
            ip("link", "set", "dev", name, "address", f"02:00:00:00:00:0{number}", netns=netns)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.create_many([Veth(End("x", places[0]), End("y", places[1]))], progress=stop)
    assert (names(), names("blue"), names("red")) == (set(), set(), {"taken", "taken2"})
