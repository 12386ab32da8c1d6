"""The notes of execute() when a change fails half-way or the call is interrupted, so that it can be undone."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.commands import Vethctl
from tests.live.applying import LABEL, Write, applied, interface, value
from tests.witness import host_state, ip, seen
from vethlib import NetlinkError, Session, ns
from vethlib.agent import Interface, Inverse, Observed, Plan, inverse, plan
from vethlib.agent.host.executed import Execution
from vethlib.agent.host.execution import execute
from vethlib.agent.host.observation import observe

pytestmark = pytest.mark.slow


@pytest.fixture
def write(write: Write) -> Write:
    def write_pair(**fields: Any) -> str:
        """Write a pair whose first end has these fields."""
        return write(value("one", "two", "ns1", ip_addresses=["10.0.0.1/24"]) | fields, value("two", "one", "ns2"))

    return write_pair


def refuse(*_: Any, **__: Any) -> None:
    raise NetlinkError("renew the addresses of 'one'", errno=errno.ENOBUFS)


def rename_before(renew: Callable[..., None]) -> Callable[..., None]:
    def renew_later(*args: Any, **more: Any) -> None:
        ip("link", "set", "one", "name", "theirs", netns="ns1")
        renew(*args, **more)

    return renew_later


RENAMED = pytest.param("renamed", id="renamed by another program", marks=pytest.mark.needs_kernel("6.2"))  # while up


@pytest.mark.parametrize("how", ["refused", RENAMED])
@pytest.mark.parametrize(
    "tried",
    [{"mtu": 1400}, {"mtu": 1400, "txqlen": 7, "ip_addresses": ["10.0.0.1/24", "10.0.1.1/24"]}],
    ids=str,
)
def test_a_change_of_which_only_the_first_step_was_made_is_undone(
    vethctl: Vethctl, write: Write, monkeypatch: pytest.MonkeyPatch, how: str, tried: dict[str, Any]
) -> None:
    assert vethctl("apply", write()).code == 0
    ip("address", "change", "10.0.0.1/24", "dev", "one", "valid_lft", "9000", "preferred_lft", "9000", netns="ns1")
    failing = refuse if how == "refused" else rename_before(Session.renew_addresses)
    monkeypatch.setattr(Session, "renew_addresses", failing)
    before = host_state()
    undone = vethctl("apply", write(**tried), "--try", "60s", "--json")
    assert undone.code == 2
    assert undone.json["outcome"] == "undone"
    link = seen("one" if how == "refused" else "theirs", "ns1")
    assert (link["mtu"], link["txqlen"]) == (1500, 1000)
    assert [one["local"] for one in link["addr_info"] if one["family"] == "inet"] == ["10.0.0.1"]
    if how == "refused":
        assert host_state() == before
    changed = [entry["interface"] for entry in undone.json["undone"] if entry["op"] == "change"]
    assert changed == ["one"]


NETNS = ("ns1", "ns2")
REFS = ["", *(f"netns:{name}" for name in NETNS)]


@pytest.fixture
def session(home: ns.Netns) -> Iterator[Session]:
    for name in NETNS:
        ns.Netns.create(name).close()
    with Session() as session:
        yield session


def pairs() -> list[Interface]:
    """Three pairs with an end in the home namespace, and three without: these are deleted in two rounds."""
    desired = []
    for number in range(6):
        at = "" if number < 3 else "ns2"
        addresses = {"ip_addresses": [f"10.0.{number}.1/24"]}
        desired.append(interface(f"a{number}", f"b{number}", at, txqlen=7, **addresses))
        desired.append(interface(f"b{number}", f"a{number}", "ns1"))
    return desired


def look(session: Session, desired: list[Interface]) -> Observed:
    return observe(session, REFS, interfaces=desired)


def state() -> dict[str, list[Any]]:
    """The links, without their indexes and what the kernel gives them."""
    return {
        netns: sorted(
            (link["ifname"], link["mtu"], link["txqlen"], link["address"], link.get("ifalias"))
            for link in links
            if link["ifname"] != "lo"
        )
        for netns, links in host_state().items()
    }


def interrupt_at_progress(_: pytest.MonkeyPatch, what: str) -> Callable[[str, int, int], None]:
    def progress(now: str, done: int, total: int) -> None:
        if now == what:
            raise KeyboardInterrupt

    return progress


def interrupt_afterwards(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    raise_after(monkeypatch, what, KeyboardInterrupt())


def fail_as_a_whole(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    raise_after(monkeypatch, what, NetlinkError("talk to the kernel", errno=errno.ENOBUFS))


def raise_after(monkeypatch: pytest.MonkeyPatch, what: str, error: BaseException) -> None:
    """Have the bulk operation end with an error after it has done everything."""
    method = getattr(Session, f"{what}_many")

    def do_and_raise(*args: Any, **more: Any) -> None:
        method(*args, **more)
        monkeypatch.undo()
        raise error

    monkeypatch.setattr(Session, f"{what}_many", do_and_raise)


ENDS = [interrupt_at_progress, interrupt_afterwards, fail_as_a_whole]


@pytest.mark.parametrize("what", ["delete", "create"])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("more", [False, True], ids=["alone", "after others"])
def test_a_bulk_operation_that_ends_early_can_be_undone(
    session: Session, monkeypatch: pytest.MonkeyPatch, end: Callable[..., Any], what: str, more: bool
) -> None:
    others = [interface("x", "y", "ns1"), interface("y", "x", "ns2")] if more else []
    wanted, replaced = (pairs(), []) if what == "create" else ([], pairs())
    applied(session, *replaced, *others)
    if more:
        others[0] = interface("x", "y", "ns1", mtu=1400)
    desired = [*wanted, *others]
    before, was = look(session, desired), state()
    made = plan({each.name: each for each in desired}, before, label=LABEL, prune=True)
    account = Execution()
    progress = end(monkeypatch, what)
    with pytest.raises((KeyboardInterrupt, NetlinkError)):
        execute(session, made, progress=progress, account=account)
    assert state() != was or what == "create"
    now = look(session, desired)
    undo = inverse(account.done, before, now, now, begun=account.begun)
    assert undo.left == ()
    assert execute(session, undo.plan).errors == []
    assert state() == was


def test_nothing_is_begun_after_a_call_that_has_ended(session: Session) -> None:
    assert applied(session, *pairs()).begun == []
    assert applied(session, prune=True).begun == []


def test_a_pair_that_could_not_be_deleted_or_created_needs_no_undoing(session: Session) -> None:
    applied(session, *pairs())
    before = look(session, [])
    made = plan({}, before, label=LABEL, prune=True)
    assert inverse([], before, before, before, begun=made.operations) == Inverse(Plan((), {}), ())
    again = [interface("new", "other", "ns1"), interface("other", "new", "ns2")]
    creation = plan({each.name: each for each in again}, look(session, again), label=LABEL, prune=False)
    now = look(session, again)
    assert inverse([], before, now, now, begun=creation.operations) == Inverse(Plan((), {}), ())
    ip("link", "add", "new", "type", "bridge", netns="ns1")  # of another program, which was there before
    before = look(session, again)
    assert inverse([], before, before, before, begun=creation.operations) == Inverse(Plan((), {}), ())
