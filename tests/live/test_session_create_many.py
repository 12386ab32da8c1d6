"""Creating many pairs: all or nothing, or all that can be created, despite any disturbance."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.live.answers import replace_with_same_number
from tests.live.older_kernel import without_echo
from tests.refusing import raises
from tests.witness import addresses, host_state, ip, names, poll
from vethlib import BatchError, End, InvalidValue, LinkExists, NetlinkError, NetnsNotFound, Session, Veth, VethError, ns
from vethlib.session.write.creating import create

MANY = 150  # more than two slabs


def wanted(count: int) -> list[Veth]:
    """Pairs of all sorts: within home, across, within one foreign namespace."""
    places = [("", ""), ("", "blue"), ("red", ""), ("blue", "red"), ("red", "red")]
    return [
        Veth(
            End(f"l{number}", places[number % 5][0], addresses=[f"10.1.{number}.1/24"]),
            End(f"r{number}", places[number % 5][1], addresses=[f"2001:db8:{number}::1/64"]),
        )
        for number in range(count)
    ]


@pytest.fixture
def _both(blue: str, red: str) -> None:
    pass


pytestmark = pytest.mark.usefixtures("_both")


def test_results_come_in_the_order_of_what_was_asked(session: Session) -> None:
    veths = wanted(MANY)
    pairs = session.create_many(veths)
    assert [(pair.a.name, pair.b.name) for pair in pairs] == [(veth.a.name, veth.b.name) for veth in veths]
    told = {
        netns: {link["ifname"]: link["ifindex"] for link in ip("link", netns=netns)} for netns in ("", "blue", "red")
    }
    for veth, pair in zip(veths, pairs, strict=True):
        assert told[str(veth.a.netns)][veth.a.name] == pair.a.index == pair.b.peer_index
        assert told[str(veth.b.netns)][veth.b.name] == pair.b.index == pair.a.peer_index
    assert addresses("l149", "red") == ["10.1.149.1/24"]


def test_nothing_and_a_generator_are_fine(session: Session) -> None:
    assert session.create_many([]) == []
    assert session.create_many([], on_error="continue") == []
    assert len(session.create_many(Veth(End(f"a{n}"), End(f"b{n}")) for n in range(3))) == 3
    assert len(names()) == 6


def test_a_generator_that_fails_has_made_nothing(session: Session) -> None:
    def broken() -> Iterator[Veth]:
        yield Veth(End("a"), End("b"))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        session.create_many(broken())
    assert names() == set()


def test_progress_is_told(session: Session) -> None:
    told: list[tuple[int, int]] = []
    session.create_many(wanted(MANY), progress=lambda done, total: told.append((done, total)))
    assert told == [(64, 150), (128, 150), (150, 150)]


def test_an_exception_of_progress_takes_everything_back(session: Session) -> None:
    before = host_state()

    def stop(done: int, total: int) -> None:
        if done > 64:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        session.create_many(wanted(MANY), progress=stop)
    assert host_state() == before


def test_on_error_is_one_of_two_words(session: Session) -> None:
    with raises(InvalidValue, field="on_error", value="ignore"):
        session.create_many([], on_error="ignore")  # type: ignore[arg-type]


def spoilt_name_here(veth: Veth) -> Veth:
    return Veth(End("taken"), veth.b)


def spoilt_name_there(veth: Veth) -> Veth:
    return Veth(veth.a, End("taken", "blue"))


def spoilt_netns(veth: Veth) -> Veth:
    return Veth(veth.a, End("x", "nowhere"))


def spoilt_address(veth: Veth) -> Veth:
    # An address that is well-formed, and that the kernel will not have on a link that is not the loopback.
    return Veth(End("x", "red", addresses=["::1/128"]), veth.b)


def spoilt_spelling(veth: Veth) -> Veth:
    return Veth(End("same", "netns:blue"), End("same", "blue"))


SPOILT: list[tuple[Callable[[Veth], Veth], type[VethError], dict[str, Any]]] = [
    (spoilt_name_here, LinkExists, {"errno": errno.EEXIST}),
    (spoilt_name_there, LinkExists, {"errno": errno.EEXIST}),
    (spoilt_netns, NetnsNotFound, {"netns": "netns:nowhere"}),
    (spoilt_address, NetlinkError, {"errno": errno.EADDRNOTAVAIL, "netns": "red"}),
    (spoilt_spelling, InvalidValue, {"field": "name"}),
]


@pytest.fixture
def taken(session: Session) -> dict[str, Any]:
    ip("link", "add", "taken", "type", "bridge")
    ip("link", "add", "taken", "type", "bridge", netns="blue")
    return host_state()


@pytest.mark.parametrize("position", [0, 30, 63, 64, 149])
@pytest.mark.parametrize(("spoil", "kind", "fields"), SPOILT)
def test_one_failure_takes_everything_back(
    session: Session,
    taken: dict[str, Any],
    position: int,
    spoil: Callable[[Veth], Veth],
    kind: type[VethError],
    fields: dict[str, Any],
) -> None:
    veths = wanted(MANY)
    veths[position] = spoil(veths[position])
    with raises(kind, **fields) as caught:
        session.create_many(veths)
    assert caught.value.item is veths[position]
    assert not isinstance(caught.value, BatchError)
    assert host_state() == taken


@pytest.mark.parametrize("a_first", [True, False])
def test_a_name_that_is_taken_twice_in_one_call_is_found(session: Session, a_first: bool) -> None:
    before = host_state()
    twice = Veth(End("l7", "blue"), End("x")) if a_first else Veth(End("x"), End("l7", "blue"))
    with pytest.raises(LinkExists, match="'l7'.*netns:blue") as caught:
        session.create_many([Veth(End("l7", "netns:blue"), End("y")), twice])
    assert caught.value.item is twice
    assert host_state() == before


def test_both_names_that_are_taken_are_named(session: Session, taken: dict[str, Any]) -> None:
    with pytest.raises(LinkExists):
        session.create(Veth(End("taken", "blue"), End("taken")))
    assert host_state() == taken


def test_others_that_failed_too_are_mentioned(session: Session, taken: dict[str, Any]) -> None:
    with pytest.raises(LinkExists) as caught:
        session.create_many([Veth(End("taken"), End(f"b{number}")) for number in range(3)])
    assert caught.value.__notes__ == ["2 more of the pairs sent with it failed, too"]
    assert host_state() == taken


def test_continue_does_all_it_can_and_says_what_it_could_not(session: Session, taken: dict[str, Any]) -> None:
    veths = wanted(MANY)
    spoilt = {}
    for number, (spoil, kind, fields) in enumerate(SPOILT * 2):
        position = number * 14 + 3
        veths[position] = spoil(veths[position])
        spoilt[position] = (kind, fields)
    told: list[int] = []
    with pytest.raises(BatchError) as caught:
        session.create_many(veths, on_error="continue", progress=lambda done, _: told.append(done))
    assert told == [64, 128, 150]
    errors = caught.value.exceptions
    assert [error.item for error in errors] == [veths[position] for position in spoilt]
    for error, (kind, fields) in zip(errors, spoilt.values(), strict=True):
        assert isinstance(error, kind)
        assert {name: getattr(error, name) for name in fields} == fields
    made = [veth for position, veth in enumerate(veths) if position not in spoilt]
    for netns in ("", "blue", "red"):
        there = {end.name for veth in made for end in (veth.a, veth.b) if end.netns == netns}
        assert names(netns) - {"taken"} == there
        assert {"l0", "l1", "r149"} & there == {"l0", "l1", "r149"} & names(netns)


def test_continue_with_nothing_wrong_returns_the_pairs(session: Session) -> None:
    assert len(session.create_many(wanted(5), on_error="continue")) == 5


@pytest.mark.parametrize("on_error", ["rollback", "continue"])
def test_half_made_pairs_of_a_silent_kernel_are_taken_back_too(
    session: Session, taken: dict[str, Any], monkeypatch: pytest.MonkeyPatch, on_error: Any
) -> None:
    without_echo(monkeypatch)
    with pytest.raises((LinkExists, BatchError)):
        session.create_many([*wanted(3), Veth(End("taken"), End("x"))], on_error=on_error)
    if on_error == "rollback":
        assert host_state() == taken
    else:
        assert len(names()) == 1 + 4


def test_what_cannot_be_taken_back_is_said(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise NetlinkError("no")

    monkeypatch.setattr(create, "delete_indexes", refuse)
    veths = [Veth(End("a", "blue"), End("b", "red")), Veth(End("c"), End("d"))]

    def stop(*_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        session.create_many(veths, progress=stop)
    assert sorted(caught.value.__notes__) == [
        "1 pairs in netns:blue stay behind: no",
        "1 pairs in the home namespace stay behind: no",
    ]
    assert (names("blue"), names()) == ({"a"}, {"c", "d"})


def test_a_namespace_that_was_replaced_meanwhile_is_left_alone(session: Session) -> None:
    """Pairs are taken back by identity: a link with the old name, and even the old index, may be somebody else's."""

    def replace(*_: object) -> None:
        # Kept open until the new one is there, so that the kernel gives that another inode number.
        with ns.Netns.open("blue"):
            ip("netns", "del", "blue")
            ip("netns", "add", "blue")
        for name in ("a", "b"):
            ip("link", "add", "name", name, "type", "bridge", netns="blue")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        session.create_many([Veth(End("a", "blue"), End("b", "red"))], progress=replace)
    assert names("blue") == {"a", "b"}
    assert poll(lambda: names("red") == set())


@pytest.mark.needs_kernel("5.14")  # SO_NETNS_COOKIE
def test_a_namespace_that_got_the_number_of_the_former_one_is_left_alone(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(*_: object) -> None:
        replace_with_same_number("blue", monkeypatch)
        ip("link", "add", "name", "a", "type", "veth", "peer", "name", "b", netns="blue")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        session.create_many([Veth(End("a", "blue"), End("b", "red"))], progress=replace)
    assert names("blue") == {"a", "b"}
    assert poll(lambda: names("red") == set())


def test_a_namespace_that_went_meanwhile_took_its_pairs_along(session: Session) -> None:
    def remove(*_: object) -> None:
        ip("netns", "del", "blue")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        session.create_many([Veth(End("a", "blue"), End("b", "red"))], progress=remove)
    assert poll(lambda: names("red") == set())


# --- what it reports


def test_each_batch_is_reported_with_its_namespaces_before_it_is_created_and_when_it_exists(session: Session) -> None:
    wishes = wanted(MANY)
    before: list[create.Planned] = []
    made: list[create.Made] = []

    def is_to_be(planned: list[create.Planned]) -> None:
        assert not {pair.veth.a.name for pair in planned} & names(str(planned[0].veth.a.netns or ""))
        before.extend(planned)

    session.create_many(wishes, before=is_to_be, made=made.extend)
    assert [pair.veth for pair in before] == wishes
    assert [(pair.a, pair.b) for pair in before] == [
        (session.identity(veth.a.netns), session.identity(veth.b.netns)) for veth in wishes
    ]
    assert [(pair.a, pair.b) for pair in before] == [(pair.a[0], pair.b[0]) for pair in made]


def test_nothing_is_created_if_the_report_before_it_fails(session: Session) -> None:
    def refuse(_planned: list[create.Planned]) -> None:
        raise RuntimeError("no room for the record")

    before = host_state()
    with pytest.raises(RuntimeError, match="no room"):
        session.create_many(wanted(2), before=refuse)
    assert host_state() == before
