"""When an agent starts, it reports which leftovers of earlier agents it deletes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.live.applying import LABEL
from tests.live.configuring import pair, settle
from tests.witness import ip, names
from vethlib import Session
from vethlib.agent import Interface, group_of
from vethlib.agent.reconcile.configurator import Configurator


def entries(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The fields of everything in the log."""
    return [record.__dict__["vethlib"] for record in caplog.records]


@pytest.mark.parametrize(("at", "bt"), [("", ""), ("ns1", ""), ("ns1", "ns2")])
@pytest.mark.parametrize("kept", [[], pair("x", "y")], ids=["none", "others"])
def test_pairs_that_are_not_configured_any_more_and_deleted_at_a_start_are_in_the_log_and_the_history(
    session: Session, caplog: pytest.LogCaptureFixture, at: str, bt: str, kept: list[Interface]
) -> None:
    with Configurator(session) as before:
        before.resync([*pair("a", "b", at, bt), *pair("x", "y")])
        settle(before)
    caplog.clear()
    with caplog.at_level("INFO", "vethlib.agent"), Configurator(session) as configurator:
        configurator.resync(kept)
        settle(configurator)
        histories = {name: configurator.history(name) for name in "abxy"}
    assert "a" not in names(at)
    for name in "ab" if kept else "abxy":
        (change,) = histories[name]
        assert (change.state, bool(change.done)) == ("removed", True)
        (entry,) = [entry for entry in entries(caplog) if entry["interface"] == name]
        assert (entry["state"], entry["done"]) == ("removed", change.done)


@pytest.mark.parametrize("peer_netns", ["", "ns1"])
def test_a_pair_without_aliases_that_is_deleted_at_a_start_is_in_the_log(
    session: Session, caplog: pytest.LogCaptureFixture, make_netns: Callable[..., None], peer_netns: str
) -> None:
    make_netns("ns1")
    group = str(group_of(LABEL))
    ip(*f"link add name a group {group} type veth peer name b group {group}".split())
    if peer_netns:
        ip("link", "set", "dev", "b", "netns", peer_netns, "group", group)
    with caplog.at_level("INFO", "vethlib.agent"), Configurator(session) as configurator:
        configurator.resync([])
        settle(configurator)
    assert names() == set()
    (entry,) = entries(caplog)
    assert entry["done"].startswith("deleted ")
