"""The table of reasons for RETRYING, beside those that the code gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live.applying import interface
from vethlib.agent.host.creatable import PATIENCE, CreatableNetns
from vethlib.agent.planning.confine import foreseen
from vethlib.agent.planning.observed import Observed, SeenNetns
from vethlib.agent.planning.operations import ChangeLink, CreatePair
from vethlib.agent.planning.words import drift
from vethlib.agent.reasons import changed_repeatedly, drift_persists, duplicate_mac
from vethlib.agent.reconcile.backoff import FREE_REPAIRS
from vethlib.links import End, Veth

pytestmark = pytest.mark.docs

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "troubleshooting.md"


@pytest.fixture(scope="module")
def table() -> str:
    section = PAGE.read_text().partition("\n## RETRYING\n")[2].partition("\n## ")[0]
    return "\n".join(line for line in section.splitlines() if line.startswith("|"))


def test_a_repair_that_has_to_wait_is_in_the_table(table: str) -> None:
    assert f"| {changed_repeatedly('mtu is 1300, not 1500', 'mtu', FREE_REPAIRS)} |" in table


def test_a_namespace_that_is_being_deleted_is_in_the_table(table: str) -> None:
    creatable = CreatableNetns(9, lambda _: (), create_missing=True, has_file=lambda _: True)
    creatable.admit(Observed({"netns:ns1": SeenNetns("netns:ns1", (4, 1))}))
    missing = SeenNetns("netns:ns1", "netns:ns1", "/run/netns/ns1 does not exist", missing=True)
    reason = creatable.admit(Observed({"netns:ns1": missing})).netns["netns:ns1"].reason
    assert f"| {reason} |" in table
    assert f"after {PATIENCE:g} s" in table


def test_what_was_not_foreseen_is_in_the_table(table: str) -> None:
    assert f"| {foreseen(ZeroDivisionError(), 'plan a')} |" in table


def test_an_ipv6_switched_off_is_in_the_table(table: str) -> None:
    assert duplicate_mac(["…"]).text in table


def test_drift_that_no_attempt_corrects_is_in_the_table(table: str) -> None:
    a, b = interface("a", "b"), interface("b", "a")
    change = ChangeLink(a, "", (4, 1), 5, "a", {"mtu": (1300, 1500)})
    create = CreatePair(a, b, Veth(End("a"), End("b")))
    for operation in (change, create):
        assert drift_persists(drift(operation), "", 3).text in table
