"""The cache's table of the links of one namespace, compared with the simplest possible one."""

from __future__ import annotations

from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vethlib._nl.link import LinkMessage
from vethlib.ifindex import table
from vethlib.ifindex.table import Change, Table, differences, put, record_of, remove, table_of

NAMES = ["a", "b", "c", "d"]


def message(
    index: int,
    name: str = "a",
    *,
    mtu: int = 1500,
    flags: int = 0,
    link: int | None = None,
    altnames: tuple[str, ...] = (),
) -> LinkMessage:
    return LinkMessage(index, flags, name, bytes(6), mtu, link, None, "down", "veth", "", 0, 1, altnames)


messages = st.builds(
    message,
    st.integers(1, 4),
    st.sampled_from(NAMES),
    mtu=st.integers(1500, 1501),
    altnames=st.lists(st.sampled_from(["x", "y", "z"]), unique=True, max_size=2).map(tuple),
)
Step: TypeAlias = LinkMessage | int
steps: st.SearchStrategy[list[Step]] = st.lists(messages | st.integers(1, 4), max_size=30)


def by_index(table: Table) -> dict[int, LinkMessage]:
    return {key: record for key, record in table.items() if isinstance(key, int)}


def apply(step: Step, table: Table) -> Change | None:
    return remove(table, step) if isinstance(step, int) else put(table, record_of(step))


@given(steps)
def test_a_table_has_every_link_by_index_and_every_name_of_the_link_that_had_it_last(steps: list[Step]) -> None:
    table: Table = {}
    plain: dict[int, LinkMessage] = {}
    for step in steps:
        change = apply(step, table)
        old = plain.get(step if isinstance(step, int) else step.ifindex)
        new = None if isinstance(step, int) else step
        if old == new:
            assert change is None
            continue
        assert change is not None
        kind, told, before = change
        assert (told, before) == (new, old)
        if old is None or new is None:
            assert kind == ("new" if old is None else "deleted")
        else:
            assert kind == ("changed" if old.name == new.name else "renamed")
        if isinstance(step, int):
            del plain[step]
        else:
            plain[step.ifindex] = step
    assert by_index(table) == plain
    for key, record in table.items():
        assert key in (record.ifindex, record.name, *record.altnames)
        assert plain[record.ifindex] == record
    for record in plain.values():
        named = [one for one in plain.values() if one.name == record.name or record.name in one.altnames]
        if len(named) == 1 and all(record.name not in (step.name, *step.altnames) for step in others(steps, record)):
            assert table[record.name] is table[record.ifindex]


def others(steps: list[Step], record: LinkMessage) -> list[LinkMessage]:
    return [step for step in steps if not isinstance(step, int) and step.ifindex != record.ifindex]


def valid(records: list[LinkMessage]) -> list[LinkMessage]:
    """Return links that can coexist in a namespace: no index and no name occurs twice."""
    seen: set[object] = set()
    kept = []
    for record in records:
        keys = {record.ifindex, record.name, *record.altnames}
        if not keys & seen:
            seen |= keys
            kept.append(record)
    return kept


@given(st.lists(messages).map(valid), st.lists(messages).map(valid))
def test_the_differences_lead_from_one_table_to_the_other(before: list[LinkMessage], after: list[LinkMessage]) -> None:
    old, new = table_of(before), table_of(after)
    links = by_index(old)
    for kind, now, was in differences(old, new):
        index = (now or was).ifindex  # type: ignore[union-attr]
        assert links.pop(index, None) == was
        assert now != was
        if now is not None:
            links[index] = now
            assert kind == ("new" if was is None else "changed" if was.name == now.name else "renamed")
        else:
            assert kind == "deleted"
    assert links == by_index(new)


@given(st.lists(messages).map(valid))
def test_between_a_table_and_itself_there_is_no_difference(records: list[LinkMessage]) -> None:
    assert list(differences(table_of(records), table_of(records))) == []


def test_a_record_has_of_the_flags_only_up_and_no_peer_that_is_not_there_yet() -> None:
    assert record_of(message(3, flags=0x10043, link=7)) == message(3, flags=1, link=7)
    assert record_of(message(3, flags=0x1002, link=0)) == message(3, flags=0, link=None)


def test_records_share_what_is_the_same_in_many_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_shared", {})  # other tests may have filled it
    one, other = (record_of(message(3, name="".join(["et", "h0"]), mtu=int("9000"))) for _ in range(2))
    assert one.name is other.name
    assert one.mtu is other.mtu
    assert one.mac is other.mac


def copied(name: str) -> str:
    return "".join([name[:1], name[1:]])


def test_alternative_names_that_a_link_keeps_are_kept_once() -> None:
    """Each of thousands of changes that have not been fetched may repeat hundreds of them."""
    table: Table = {}
    first = tuple(f"{number:04}".ljust(127, "x") for number in range(400))
    put(table, message(1, altnames=first))
    told = [put(table, message(1, mtu=mtu, altnames=(*map(copied, first[mtu % 3 :]), f"n{mtu}"))) for mtu in range(9)]
    kept = {id(name) for change in told if change is not None and change[1] is not None for name in change[1].altnames}
    assert len(kept) < 450
    assert by_index(table)[1].altnames == (*first[8 % 3 :], "n8")
