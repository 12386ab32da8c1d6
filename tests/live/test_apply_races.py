"""What others do between a plan and its execution, refusals half-way, and interruptions: nothing is left half-built."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from tests.capabilities import dropped
from tests.live.applying import applied, example, indexes, interface, planned
from tests.live.reused_identity import replaced, with_inode_again, without_cookies
from tests.reasons import in_codes
from tests.witness import ip, names, open_fds, seen
from vethlib import LinkExists, NetlinkError, Netns, NetnsNotFound, NotPermitted, Session, ns
from vethlib.agent import AddNetns, State
from vethlib.agent.host.executed import Execution
from vethlib.agent.host.execution import execute
from vethlib.agent.host.observation import observe

PAIR = (interface("a", "b", "ns1"), interface("b", "a", "ns2"))


def test_a_name_taken_meanwhile_fails_its_pair_and_no_other(session: Session, make_netns: Callable[..., None]) -> None:
    make_netns("ns1", "ns2")
    made = planned(session, *PAIR, interface("x", "y", "ns1"), interface("y", "x", "ns2"))
    ip("link", "add", "name", "b", "type", "veth", "peer", "name", "theirs", netns="ns2")
    theirs = indexes(("b", "ns2"))
    execution = execute(session, made)
    ((_, error),) = execution.errors
    assert isinstance(error, LinkExists)
    assert error.errno == errno.EEXIST
    verdicts = execution.verdicts(made)
    assert [verdicts[name].state for name in "abxy"] == [State.FAILED] * 2 + [State.CONFIGURED] * 2
    assert names("ns1") == {"x"}
    assert names("ns2") == {"b", "theirs", "y"}
    assert indexes(("b", "ns2")) == theirs


def test_a_namespace_added_for_a_pair_that_could_not_be_made_is_taken_back(session: Session) -> None:
    made = planned(session, interface("a", "b", "ns1"), interface("b", "a"), *example("pair"))
    ip("link", "add", "name", "b", "type", "veth", "peer", "name", "theirs")
    execution = execute(session, made)
    # The example's pair lives in ns1 too, so that one stays.
    assert ns.names() == ["ns1", "ns2"]
    made = planned(session, interface("c", "d", "ns3"), interface("d", "c"))
    ip("link", "add", "name", "d", "type", "veth", "peer", "name", "theirs2")
    execution = execute(session, made)
    assert len(execution.errors) == 1
    assert execution.done == []
    assert ns.names() == ["ns1", "ns2"]


def test_a_namespace_that_somebody_else_added_meanwhile_is_used_and_never_taken_back(session: Session) -> None:
    made = planned(session, interface("a", "b", "ns1"), interface("b", "a"))
    ip("netns", "add", "ns1")
    ip("link", "add", "name", "b", "type", "veth", "peer", "name", "theirs")
    assert len(execute(session, made).errors) == 1
    assert ns.names() == ["ns1"]


Spawn = Callable[[str], int]


def put_a_veth(spawn: Spawn) -> None:
    ip("link", "add", "name", "guest", "type", "veth", "peer", "name", "guest2", netns="ns1")


def put_a_bridge(spawn: Spawn) -> None:
    ip("link", "add", "name", "guest", "type", "bridge", netns="ns1")


def use_a_tunnel(spawn: Spawn) -> None:
    ip("link", "add", "name", "tunl0", "up", "type", "bridge", netns="ns1")


def start_a_process(spawn: Spawn) -> None:
    spawn("ns1")


def replace_it(spawn: Spawn) -> None:
    replaced("ns1")


def replace_it_under_its_inode(spawn: Spawn) -> None:
    with_inode_again("ns1")  # if another program has got that number, it is one more replacement with another number


def refused_beside(session: Session, monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> Execution:
    """Add a namespace for a pair that is refused; others `do` something in the meantime."""
    made = planned(session, interface("a", "b", "ns1"), interface("b", "a"))
    ip("link", "add", "name", "b", "type", "veth", "peer", "name", "theirs")
    create_many = Session.create_many

    def meanwhile(self: Session, *args: Any, **kwargs: Any) -> Any:
        do()
        return create_many(self, *args, **kwargs)

    monkeypatch.setattr(Session, "create_many", meanwhile)
    execution = execute(session, made)
    assert len(execution.errors) == 1
    return execution


@pytest.mark.parametrize(
    "use",
    [
        put_a_veth,
        put_a_bridge,
        use_a_tunnel,
        start_a_process,
        replace_it,
        pytest.param(replace_it_under_its_inode, marks=pytest.mark.needs_kernel("5.14")),
    ],
)
def test_an_added_namespace_that_somebody_uses_by_then_is_not_taken_back(
    session: Session, monkeypatch: pytest.MonkeyPatch, spawn: Spawn, use: Callable[[Spawn], None]
) -> None:
    execution = refused_beside(session, monkeypatch, lambda: use(spawn))
    assert ns.names() == ["ns1"]
    assert execution.done == [AddNetns("ns1")]


def test_an_added_namespace_with_the_tunnels_that_the_kernel_creates_everywhere_is_taken_back(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin() -> None:
        for name in ("tunl0", "sit0"):
            ip("link", "add", "name", name, "type", "bridge", netns="ns1")

    execution = refused_beside(session, monkeypatch, begin)
    assert (ns.names(), execution.done) == ([], [])


def test_an_added_namespace_is_taken_back_where_the_kernel_has_no_cookies(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_cookies(monkeypatch)
    refused_beside(session, monkeypatch, lambda: None)
    assert ns.names() == []


def test_an_added_namespace_that_somebody_removed_meanwhile_is_no_trouble(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = planned(session, interface("a", "b", "ns1"), interface("b", "a"))
    create_many = Session.create_many

    def meanwhile(self: Session, *args: Any, **kwargs: Any) -> Any:
        ip("netns", "del", "ns1")
        return create_many(self, *args, **kwargs)

    monkeypatch.setattr(Session, "create_many", meanwhile)
    ((_, error),) = execute(session, made).errors
    assert isinstance(error, NetnsNotFound)
    assert (ns.names(), names()) == ([], set())


def test_a_pair_that_somebody_deleted_meanwhile_is_as_good_as_deleted(session: Session) -> None:
    applied(session, *PAIR)
    made = planned(session, prune=True)
    ip("link", "del", "dev", "a", netns="ns1")
    execution = execute(session, made)
    assert execution.errors == []
    assert execution.done == list(made.operations)


def test_a_link_replaced_meanwhile_by_one_of_the_same_name_survives(session: Session) -> None:
    applied(session, *PAIR)
    made = planned(session, prune=True)
    ip("link", "del", "dev", "a", netns="ns1")
    ip("link", "add", "name", "a", "type", "veth", "peer", "name", "theirs", netns="ns1")
    execute(session, made)
    assert names("ns1") == {"a", "theirs"}


def test_a_link_of_the_same_name_and_index_in_a_new_namespace_of_the_same_name_survives(session: Session) -> None:
    applied(session, *PAIR)
    (index,) = indexes(("a", "ns1"))
    made = planned(session, prune=True)
    ns.remove("ns1")
    ns.Netns.create("ns1").close()
    theirs = ("name", "theirs", "index", "99")
    ip("link", "add", "name", "a", "index", str(index), "type", "veth", "peer", *theirs, netns="ns1")
    execution = execute(session, made)
    assert execution.done == list(made.operations)
    assert names("ns1") == {"a", "theirs"}


def test_deleting_pairs_of_a_namespace_that_is_gone_is_no_error(session: Session) -> None:
    applied(session, *PAIR)
    made = planned(session, prune=True)
    ns.remove("ns1")
    assert execute(session, made).errors == []


def test_a_deletion_that_is_refused_is_reported(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    applied(session, *PAIR)
    made = planned(session, *PAIR[:0], prune=True)
    with dropped():
        execution = execute(session, made)
    ((operation, error),) = execution.errors
    assert operation is made.operations[0]
    assert isinstance(error, NotPermitted)
    assert execution.verdicts(made) == {}
    assert names("ns1") == {"a"}


def test_a_namespace_that_may_not_be_added_fails_its_pairs_with_the_reason(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = planned(session, *PAIR, interface("x", "y"), interface("y", "x"), interface("v", "w", "ns3"))
    refusal = NotPermitted("cannot create /run/netns/ns2: it needs root")
    create = Netns.create

    def refuse(name: str, **how: bool) -> Netns:
        if ns.parse(name) == ns.parse("ns2"):
            raise refusal
        return create(name, **how)

    monkeypatch.setattr(Netns, "create", refuse)
    execution = execute(session, made)
    assert [(operation.op, error) for operation, error in execution.errors] == [
        ("add-netns", refusal),
        ("create", refusal),
    ]
    verdicts = execution.verdicts(made)
    assert (in_codes(verdicts["a"]), verdicts["a"].reason) == ("FAILED: not-permitted", str(refusal))
    assert verdicts["x"].state is State.CONFIGURED
    assert ns.names() == []
    assert names() == {"x", "y"}


@pytest.mark.parametrize("after", [0, 1])
def test_an_interrupted_apply_leaves_neither_pairs_nor_namespaces(session: Session, after: int) -> None:
    ends = [
        one
        for number in range(100)
        for one in (interface(f"a{number}", f"b{number}", "ns1"), interface(f"b{number}", f"a{number}"))
    ]
    made = planned(session, *ends)
    fds = open_fds()
    told: list[str] = []

    def interrupt(what: str, done: int, total: int) -> None:
        told.append(what)
        if len(told) > after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(session, made, progress=interrupt)
    assert told == ["create"] * (after + 1)
    assert names() == set()
    assert ns.names() == []
    assert open_fds() == fds


def test_a_pair_that_is_there_outlives_the_interruption_of_another_apply(session: Session) -> None:
    applied(session, *PAIR)
    before = seen("a", "ns1")["ifindex"]
    made = planned(session, *PAIR, interface("x", "y", "ns3"), interface("y", "x"))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(session, made, progress=interrupt)
    assert ns.names() == ["ns1", "ns2"]
    assert seen("a", "ns1")["ifindex"] == before


def test_what_makes_looking_impossible_is_raised(session: Session, blue: str) -> None:
    with dropped(), pytest.raises(NotPermitted):
        observe(session, ["netns:blue"])


def test_a_reference_that_leads_to_no_namespace_is_no_error(session: Session) -> None:
    observed = observe(session, ["path:/proc/self/nothing", "pid:4194303", "netns:ns1"])
    assert [observed.netns[ref].code for ref in ("path:/proc/self/nothing", "pid:4194303", "netns:ns1")] == [
        "netns-not-found",
        "process-gone",
        "netns-not-found",
    ]
    assert observed.netns["pid:4194303"].place is None
    assert observed.netns["netns:ns1"].creatable
    assert not observe(session, ["netns:ns1"], create_missing=False).netns["netns:ns1"].creatable


def test_an_error_that_is_not_about_being_there_is_raised(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    from vethlib.session.read.survey import Survey

    trouble = NetlinkError("out of file descriptors", errno=errno.EMFILE)
    monkeypatch.setattr(Session, "survey", lambda *_, **__: Survey({"": trouble}, []))
    with pytest.raises(NetlinkError) as raised:
        observe(session, [])
    assert raised.value is trouble
    assert not isinstance(trouble, NetnsNotFound)
