"""lo is up in namespaces that are created for pairs, and is left alone in those of others."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator

import pytest

from tests.commands import Vethctl
from tests.live.applying import interface, reaches, value
from tests.live.configuring import put, settle
from tests.witness import ip
from vethlib import Session, ns
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.errors import VethError
from vethlib.ns import Netns

PAIR = [value("a", "b", "ns1", ip_addresses=["10.0.0.1/24"]), value("b", "a", "ns2")]


@pytest.fixture
def session(home: ns.Netns) -> Iterator[Session]:
    with Session() as session:
        yield session


def is_up(netns: str) -> bool:
    (lo,) = ip("link", "show", "lo", netns=netns)
    return "UP" in lo["flags"]


def test_a_namespace_that_apply_creates_reaches_its_own_addresses(vethctl: Vethctl) -> None:
    ip("netns", "add", "ns2")  # somebody else's, with its lo down
    assert vethctl("apply", "-", stdin=json.dumps(PAIR)).code == 0
    assert (is_up("ns1"), is_up("ns2")) == (True, False)
    assert reaches("ns1", "10.0.0.1", "ns1")
    assert vethctl("diff", "-", stdin=json.dumps(PAIR)).code == 0


def test_apply_leaves_lo_down_where_it_is_told_to(vethctl: Vethctl) -> None:
    assert vethctl("apply", "-", "--loopback", "down", stdin=json.dumps(PAIR)).code == 0
    assert not is_up("ns1")
    assert vethctl("apply", "-", "--loopback", "sideways", stdin=json.dumps(PAIR)).code == 1


@pytest.mark.parametrize("loopback", [True, False])
def test_an_agent_sets_it_up_once_and_never_again(session: Session, loopback: bool) -> None:
    with Configurator(session, label="lo", loopback=loopback) as configurator:
        put(configurator, interface("a", "b", "ns1"), interface("b", "a", "ns2"))
        settle(configurator)
        assert is_up("ns1") == is_up("ns2") == loopback
        ip("link", "set", "lo", "down", netns="ns1")
        configurator.resync()
        settle(configurator)
        assert not is_up("ns1")  # who set it down has a reason


def test_netns_add_leaves_it_down_as_ip_does_and_up_sets_it_up(vethctl: Vethctl) -> None:
    assert vethctl("netns", "add", "plain").code == 0
    assert vethctl("netns", "add", "--up", "one", "two").code == 0
    assert [is_up(name) for name in ("plain", "one", "two")] == [False, True, True]
    assert vethctl("netns", "add", "--up", "plain").code == 2
    assert not is_up("plain")
    for action in ("list", "del"):
        assert vethctl("netns", action, "--up", *(["one"] if action == "del" else [])).code == 1
    assert is_up("one")


def test_an_existing_namespace_is_opened_as_it_is(home: ns.Netns) -> None:
    Netns.create("there").close()
    Netns.create("there", exist_ok=True, up=True).close()
    assert not is_up("there")


def test_nothing_is_left_of_a_namespace_whose_loopback_cannot_be_set_up(
    home: ns.Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(errno.EACCES, "refused")

    monkeypatch.setattr("vethlib.ns.named.set_loopback_up", refuse)
    with pytest.raises(VethError):
        Netns.create("half", up=True)
    assert ns.names() == []
