"""After a failed call, its own step is undone whatever else fails, others are untouched, and what remains is named."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.mounts import read_only_sysctls
from tests.refusing import raises
from tests.witness import addresses, host_state, names, seen
from vethlib import BatchError, End, NetlinkError, Pair, Session, Veth, WaitTimeout, ns
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.core.undo import note, undo_all
from vethlib.session.read import wait
from vethlib.session.write.creating import create
from vethlib.session.write.delete import delete_indexes

DISABLE = "/proc/sys/net/ipv6/conf/default/disable_ipv6"


@pytest.fixture
def read_only(session: Session, blue: str) -> Iterator[None]:
    """IPv6 is off for new links, and cannot be switched on: /proc/sys is read-only, as in a container."""
    for netns in ("", blue):
        with ns.entered(netns):
            Path(DISABLE).write_text("1")
    with read_only_sysctls():
        yield


def test_a_pair_whose_ipv6_cannot_be_enabled_costs_no_other_of_its_namespace(
    session: Session, blue: str, read_only: None
) -> None:
    wanted = [
        Veth(End("a0", blue, addresses=["10.0.0.1/24"]), End("b0")),
        Veth(End("a1", blue, addresses=["fd00::1/64"]), End("b1")),
        Veth(End("a2", blue, addresses=["10.0.2.1/24"]), End("b2", addresses=["10.0.2.2/24"])),
        Veth(End("a3", blue), End("b3", addresses=["fd00::3/64"])),
        Veth(End("a4", blue, alias="x"), End("b4")),
    ]
    with pytest.raises(BatchError) as caught:
        session.create_many(wanted, on_error="continue")
    assert [error.item for error in caught.value.exceptions] == [wanted[1], wanted[3]]
    assert [(pair.a.name, pair.b.name) for pair in caught.value.created] == [("a0", "b0"), ("a2", "b2"), ("a4", "b4")]
    assert (names(blue), names()) == ({"a0", "a2", "a4"}, {"b0", "b2", "b4"})
    assert (addresses("a2", blue), addresses("b2")) == (["10.0.2.1/24"], ["10.0.2.2/24"])


def test_all_is_taken_back_where_ipv6_cannot_be_enabled(session: Session, blue: str, read_only: None) -> None:
    before = host_state()
    with pytest.raises(NetlinkError):
        session.create_many([Veth(End("a", blue), End("b")), Veth(End("c", blue, addresses=["fd00::1/64"]), End("d"))])
    assert host_state() == before


@pytest.mark.parametrize(
    "more",
    [
        {"mac": "02:00:00:00:00:07", "mtu": 1400, "group": 4, "up": False},
        {"new_name": "z", "alias": "new"},
        {"add_addresses": ["10.1.0.1/24", "fd00::1/64"], "remove_addresses": ["10.0.0.1/24"]},
    ],
)
def test_a_change_that_fails_where_nothing_can_be_switched_is_undone(
    session: Session, blue: str, read_only: None, more: dict[str, Any]
) -> None:
    session.create(Veth(End("a", blue, alias="old", addresses=["10.0.0.1/24", "10.0.0.2/24"]), End("b", blue)))
    before = host_state()
    with pytest.raises(NetlinkError):
        session.set("a", blue, **({"add_addresses": ["fd00::1/64"]} | more))
    assert host_state() == before


def test_those_that_are_made_are_in_the_error_in_order_as_they_would_be_returned(session: Session, blue: str) -> None:
    session.create(Veth(End("taken"), End("x")))
    wanted = [Veth(End(f"a{n}", blue, addresses=[f"10.0.{n}.1/24"]), End(f"b{n}")) for n in range(70)]
    spoilt = [*wanted[:3], Veth(End("taken"), End("y")), *wanted[3:], Veth(End("z", "nowhere"), End("w"))]
    with pytest.raises(BatchError) as caught:
        session.create_many(spoilt, on_error="continue")
    created = caught.value.created
    assert [pair.a.name for pair in created] == [f"a{n}" for n in range(70)]
    assert all(isinstance(pair, Pair) for pair in created)
    assert [pair.a.index for pair in created] == [session.index(f"a{n}", blue) for n in range(70)]
    assert pickle.loads(pickle.dumps(caught.value)).created == created
    some, rest = caught.value.split(NetlinkError)
    assert some is not None
    assert rest is not None
    for part in (some, rest):
        assert isinstance(part, BatchError)
        assert list(part.created) == list(created)


def test_a_failure_that_leaves_nothing_has_nothing_created(session: Session) -> None:
    session.create(Veth(End("taken"), End("x")))
    with pytest.raises(NetlinkError) as caught:
        session.create_many([Veth(End("a"), End("b")), Veth(End("taken"), End("y"))])
    assert list(caught.value.created) == []
    with pytest.raises(BatchError) as batch:
        session.delete_many([("nope", "")], missing_ok=False)
    assert list(batch.value.created) == []


def test_pairs_that_do_not_become_usable_stay_and_are_in_the_error(session: Session, blue: str) -> None:
    """The other end is down, so the link has no carrier."""
    wanted = [
        Veth(End("a0", blue), End("b0")),
        Veth(End("a1", blue), End("b1", up=False)),
        Veth(End("a2", blue), End("b2")),
    ]
    with raises(WaitTimeout, awaited="carrier", name="a1", netns=blue, seconds=0.1) as one:
        session.create(wanted[1], wait=0.1)
    assert [pair.a.name for pair in one.value.created] == ["a1"]
    session.delete("a1", blue)
    with pytest.raises(WaitTimeout) as all_or_none:
        session.create_many(wanted, wait=0.3)
    assert [pair.a.name for pair in all_or_none.value.created] == ["a0", "a1", "a2"]
    session.delete_many([(f"a{n}", blue) for n in range(3)])
    with pytest.raises(BatchError) as batch:
        session.create_many(wanted, wait=4, on_error="continue")  # in which the others have a carrier
    assert [(type(error), error.item) for error in batch.value.exceptions] == [(WaitTimeout, wanted[1])]
    assert [pair.a.name for pair in batch.value.created] == ["a0", "a1", "a2"]
    assert seen("a1", blue)["ifindex"] == batch.value.created[1].a.index


def test_an_interruption_of_the_wait_takes_the_pairs_back(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> NoReturn:
        assert names() == {"a", "b"}
        raise KeyboardInterrupt

    monkeypatch.setattr(wait, "until_usable", interrupt)
    with pytest.raises(KeyboardInterrupt):
        session.create(Veth(End("a"), End("b")), wait=5)
    assert names() == set()


@pytest.mark.parametrize("refused", [[NetlinkError("no")] * 2, [KeyboardInterrupt()], [NetlinkError("no")]])
def test_every_namespace_is_cleared_whatever_the_others_raise(
    session: Session, blue: str, red: str, monkeypatch: pytest.MonkeyPatch, refused: list[BaseException]
) -> None:
    errors = [type(error)(*error.args) for error in refused]  # those of the parameters outlive the test

    def refuse(places: Namespaces, place: OpenNetns, groups: Mapping[int, int]) -> None:
        if place.ref == blue and errors:
            raise errors.pop(0)
        delete_indexes(places, place, groups)

    def stop(*_: object) -> NoReturn:
        raise RuntimeError

    monkeypatch.setattr(create, "delete_indexes", refuse)
    stays = len(refused) == 2
    with pytest.raises(type(refused[0]) if isinstance(refused[0], KeyboardInterrupt) else RuntimeError) as caught:
        session.create_many(
            [Veth(End("a", blue), End("b", red)), Veth(End("c", red), End("d", red)), Veth(End("e"), End("f"))],
            progress=stop,
        )
    assert (names(red), names()) == ({"b"} if stays else set(), set())
    assert getattr(caught.value, "__notes__", []) == (["1 pairs in netns:blue stay behind: no"] if stays else [])


def raising(error: BaseException, done: list[str], name: str) -> Callable[[], None]:
    def step() -> None:
        done.append(name)
        raise error

    return step


def test_every_step_of_undoing_runs_and_an_interruption_comes_last() -> None:
    done: list[str] = []
    told: list[BaseException] = []
    errors = [ValueError(), KeyboardInterrupt("first"), OSError(), KeyboardInterrupt("last")]
    with pytest.raises(KeyboardInterrupt, match="last"):
        undo_all([(raising(error, done, str(number)), told.append) for number, error in enumerate(errors)])
    assert done == ["0", "1", "1", "2", "3", "3"]
    assert told == errors
    undo_all([])


def test_a_note_is_added_once() -> None:
    error = ValueError()
    for text in ("a", "b", "a"):
        note(error, text)
    assert error.__notes__ == ["a", "b"]
