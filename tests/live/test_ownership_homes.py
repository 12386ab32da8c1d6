"""Agents of one label, each in its own network namespace: none takes another's pairs for its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.live.applying import LABEL
from tests.live.configuring import configured, is_state, pair, put, settle, until
from tests.witness import ip, names, seen
from vethlib import Session, ns
from vethlib.agent import Interface, State
from vethlib.agent.reconcile.configurator import Configurator

RUN = Path("/run/vethlib")


@contextmanager
def agent_in(home: str, *, records: str | None = None) -> Iterator[Configurator]:
    """An agent of the same label in a named namespace."""
    with ns.entered(home), Session() as session, Configurator(session, records=records) as configurator:
        yield configurator


def lose_all_records() -> None:
    shutil.rmtree(RUN)


def lose_nothing() -> None:
    pass


@pytest.fixture(autouse=True)
def namespaces(make_netns: Callable[..., None]) -> None:
    make_netns("h1", "h2", "ns1", "ns2", "ns3")


# Where the pair of the first agent is, in its own home namespace or elsewhere.
where = pytest.mark.parametrize(("at", "bt"), [("h1", "h1"), ("h1", "ns1"), ("ns1", "ns2"), ("ns1", "ns1")])


@where
@pytest.mark.parametrize("lose", [lose_nothing, lose_all_records])
@pytest.mark.parametrize("records", [None, ""], ids=["in its file", "in memory"])
def test_the_start_of_an_agent_elsewhere_leaves_the_pairs_of_another_one_alone(
    at: str, bt: str, lose: Callable[[], None], records: str | None
) -> None:
    with agent_in("h1", records=records) as first:
        first.resync(pair("a", "b", at, bt))
        settle(first)
        assert configured(first, "a", "b")()
    before = seen("a", at)["ifindex"], seen("b", bt)["ifindex"]
    if records is None:
        lose()
    with agent_in("h2") as second:
        second.resync(pair("x", "y", "h2", "ns3"))
        settle(second)
        assert configured(second, "x", "y")()
        second.resync([])
        settle(second)
    assert (names("h2"), names("ns3")) == (set(), set())
    assert (seen("a", at)["ifindex"], seen("b", bt)["ifindex"]) == before


@where
def test_not_even_where_both_have_interfaces_in_one_namespace(at: str, bt: str) -> None:
    with agent_in("h1") as first:
        first.resync(pair("a", "b", at, bt))
        settle(first)
    before = seen("a", at)["ifindex"], seen("b", bt)["ifindex"]
    with agent_in("h2") as second:
        second.resync([*pair("x", "y", "h2", at), *pair("p", "q", "h2", bt)])
        settle(second)
        assert configured(second, "x", "y", "p", "q")()
        assert (seen("a", at)["ifindex"], seen("b", bt)["ifindex"]) == before
        put(second, *pair("a", "z", at, "ns3"))
        settle(second)
        assert second.status("a")[0].state is State.FAILED
    assert (seen("a", at)["ifindex"], seen("b", bt)["ifindex"]) == before


def test_a_pair_that_an_agent_is_about_to_build_or_has_built_while_another_one_waits_to_start_is_left_alone() -> None:
    with agent_in("h2") as second:
        with agent_in("h1") as first:
            first.resync(pair("a", "b", "ns1", "ns2"))
            settle(first)
        index = seen("a", "ns1")["ifindex"]
        second.resync(pair("x", "y", "ns1", "ns3"))
        settle(second)
        assert configured(second, "x", "y")()
    assert seen("a", "ns1")["ifindex"] == index


def test_a_pair_that_another_agent_has_just_built_where_this_one_was_about_to_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with agent_in("h2") as second, ns.entered("h1"), Session() as session, Configurator(session) as first:
        create_many = session.create_many

        def create_too_late(*args: Any, **kwargs: Any) -> object:
            monkeypatch.setattr(session, "create_many", create_many)
            with ns.entered("h2"):
                second.resync(pair("a", "b", "h2", "ns1"))
                settle(second)
            indexes.append(seen("b", "ns1")["ifindex"])
            return create_many(*args, **kwargs)

        indexes: list[int] = []
        monkeypatch.setattr(session, "create_many", create_too_late)
        first.resync(pair("a", "b", "h1", "ns1"))
        until(first, is_state(first, State.FAILED, "b"))
        assert [seen("b", "ns1")["ifindex"]] == indexes
        assert names("h1") == set()


def test_a_pair_that_another_agent_has_built_where_a_killed_one_was_about_to_is_left_alone() -> None:
    with agent_in("h1") as first:
        first.resync(pair("a", "b", "h1", "ns1"))
        settle(first)
        path = Path(first.pairs.path)
    lines = path.read_text().splitlines(keepends=True)
    ip("link", "del", "dev", "b", netns="ns1")
    path.write_text("".join(line for line in lines if not line.startswith('["pair"')))
    with agent_in("h2") as second:
        second.resync(pair("a", "b", "h2", "ns1"))
        settle(second)
        assert configured(second, "a", "b")()
    index = seen("b", "ns1")["ifindex"]
    with agent_in("h1") as restarted:
        restarted.resync(pair("a", "b", "h1", "ns1"))
        settle(restarted)
        assert restarted.status("b")[0].state is State.FAILED
        restarted.resync([])
        settle(restarted)
    assert seen("b", "ns1")["ifindex"] == index


def test_the_same_pair_in_the_same_namespaces_is_adopted_from_another_home() -> None:
    with agent_in("h1") as first:
        first.resync(pair("a", "b", "ns1", "ns2"))
        settle(first)
    index = seen("a", "ns1")["ifindex"]
    with agent_in("h2") as second:
        second.resync(pair("a", "b", "ns1", "ns2"))
        settle(second)
        assert configured(second, "a", "b")()
        assert seen("a", "ns1")["ifindex"] == index
        second.resync([])
        settle(second)
    assert names("ns1") == set()


@pytest.mark.parametrize("restarts", [False, True])
def test_an_agent_without_a_record_adopts_by_its_configuration_though_it_looked_before_it_had_one(
    restarts: bool,
) -> None:
    with agent_in("h1") as first:
        first.resync([*pair("a", "b", "ns1", "ns2"), *pair("c", "d", "ns1", "ns2")])
        settle(first)
    lose_all_records()
    with agent_in("h1") as second:
        settle(second)  # its store does not answer yet
        if not restarts:
            second.resync(pair("a", "z", "ns1", "ns3"))
            settle(second)
    if restarts:
        with agent_in("h1") as second:
            second.resync(pair("a", "z", "ns1", "ns3"))
            settle(second)
    assert (names("ns1"), names("ns2"), names("ns3")) == ({"a"}, set(), {"z"})


@pytest.mark.parametrize("configuration", [[], pair("x", "y", "h1", "ns3")], ids=["none", "elsewhere"])
def test_marks_are_believed_only_at_the_first_look_with_a_configuration(configuration: list[Interface]) -> None:
    with agent_in("h2") as other:
        other.resync(pair("a", "b", "ns1", "ns2"))
        settle(other)
    lose_all_records()
    with agent_in("h1") as agent:
        agent.resync(configuration)
        settle(agent)
        agent.resync([*configuration, *pair("p", "q", "ns1", "ns2")])
        settle(agent)
        assert configured(agent, "p", "q")()
    assert (names("ns1"), names("ns2")) == ({"a", "p"}, {"b", "q"})


def test_what_cannot_be_read_beside_the_record_is_left_out() -> None:
    with agent_in("h1") as first:
        first.resync(pair("a", "b", "ns1", "ns2"))
        settle(first)
        directory = RUN / LABEL
    (directory / "pairs.1").mkdir()
    (directory / "pairs.2").write_text("")
    (directory / "pairs.3").write_text('["vethlib-pairs",1,"vpp1","",[1]]\n')
    (directory / "pairs.4").write_bytes(b"\xff\0[[[[")
    (directory / "pairs.5").symlink_to("/proc/self/mem")
    os.mkfifo(directory / "pairs.6")
    index = seen("a", "ns1")["ifindex"]
    with agent_in("h2") as second:
        second.resync(pair("x", "y", "ns1", "ns3"))
        settle(second)
        assert configured(second, "x", "y")()
    assert seen("a", "ns1")["ifindex"] == index
