"""Links that are about to vanish with the namespace of their other end are recognised, and waited for."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import pytest

from tests.witness import names, poll, seen
from vethlib import End, LinkExists, Session, Veth, ns
from vethlib.session.read.dying import Patience

ROUNDS = 20
VETH = Veth(End("va"), End("vb", "blue"))


@pytest.fixture
def end(blue: str) -> Callable[[], None]:
    """End blue, and create another namespace with its name, as ip does."""

    def end() -> None:
        subprocess.run(["ip", "-b", "-"], input="netns del blue\nnetns add blue\n", text=True, check=True)

    return end


def test_a_create_that_waits_gets_the_name_of_a_link_that_is_vanishing(
    session: Session, end: Callable[[], None]
) -> None:
    session.create(VETH)
    for _ in range(ROUNDS):
        old = seen("va")["ifindex"]
        end()
        pair = session.create(VETH, wait=20.0)
        assert pair.a.index == seen("va")["ifindex"] != old
        assert names("blue") == {"vb"}


def test_a_create_that_does_not_wait_says_that_the_link_is_vanishing(session: Session, end: Callable[[], None]) -> None:
    session.create(VETH)
    told = []
    for _ in range(ROUNDS):
        end()
        try:
            session.create(VETH)
        except LinkExists as error:
            told.append(error.dying)
            assert poll(lambda: names() == set())
            session.create(VETH)
    # On a busy machine, the kernel may report it only after the call has stopped looking.
    assert told.count(True) >= len(told) // 2
    assert names("blue") == {"vb"}


def test_many_are_created_though_some_of_their_names_are_vanishing(session: Session, end: Callable[[], None]) -> None:
    veths = [Veth(End(f"v{number}"), End(f"w{number}", "blue")) for number in range(4)]
    session.create_many(veths[1:3])
    end()
    pairs = session.create_many(veths, wait=20.0)
    assert [pair.a.name for pair in pairs] == ["v0", "v1", "v2", "v3"]


def test_a_link_that_stays_is_not_waited_for(session: Session, blue: str) -> None:
    session.create(VETH)
    for veth in (VETH, Veth(End("va"), End("other", blue)), Veth(End("va"), End("other"))):
        began = time.monotonic()
        with pytest.raises(LinkExists) as raised:
            session.create(veth, wait=30.0)
        assert not raised.value.dying
        assert time.monotonic() - began < 10.0
    assert names() == {"va"}
    assert names(blue) == {"vb"}


def test_a_link_whose_namespace_a_descriptor_keeps_stays(session: Session, blue: str, red: str) -> None:
    with ns.Netns.open(blue) as kept:
        session.create(VETH)
        ns.remove(blue)
        with pytest.raises(LinkExists) as raised:
            session.create(Veth(End("va"), End("vb", red)), wait=0.2)
        assert not raised.value.dying
        assert names(kept) == {"vb"}


def test_one_name_that_stays_is_enough_not_to_wait(session: Session, end: Callable[[], None], red: str) -> None:
    session.create_many([VETH, Veth(End("vb", red), End("keep", red))])
    end()
    began = time.monotonic()
    with pytest.raises(LinkExists, match="vb") as raised:
        session.create(Veth(End("va"), End("vb", red)), wait=30.0)
    assert not raised.value.dying
    assert time.monotonic() - began < 10.0


def test_a_wait_for_a_vanishing_link_ends_with_its_time(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.create(VETH)
    # A namespace that is ending for as long as it takes: no kernel does that on demand.
    monkeypatch.setattr("vethlib.session.read.dying._is_dying", lambda *_: True)
    began = time.monotonic()
    with pytest.raises(LinkExists) as raised:
        session.create(VETH, wait=0.2)
    assert raised.value.dying
    assert 0.2 <= time.monotonic() - began < 10.0
    assert names(blue) == {"vb"}


def test_a_rename_and_a_move_say_it_too(session: Session, red: str, monkeypatch: pytest.MonkeyPatch) -> None:
    session.create_many([Veth(End("va"), End("vb", red)), Veth(End("vc"), End("va", red))])
    for dying in (False, True):
        monkeypatch.setattr("vethlib.session.read.dying._is_dying", lambda *_, told=dying: told)
        with pytest.raises(LinkExists) as renamed:
            session.set("vc", new_name="va")
        with pytest.raises(LinkExists) as moved:
            session.move("va", to=red)
        assert (renamed.value.dying, moved.value.dying) == (dying, dying)


def test_patience_is_shared_by_all_of_a_call(session: Session) -> None:
    patience = Patience(0.0)
    with session._namespaces() as places:
        assert patience.freed(places, [(1, [(places.home, "lo")]), (2, [(places.home, "nobody")])]) == [2]
        assert patience.freed(places, [(1, [(places.home, "lo")])]) == []
