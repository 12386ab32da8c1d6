"""A bad value or an unforeseen error does not affect other interfaces."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Vethctl
from tests.proportion import is_proportional
from tests.stores import write
from tests.witness import ip, seen
from vethlib import End, Session, Veth, ns
from vethlib.agent import Configurator, Interface, State, Verdict
from vethlib.agent.limits import Limits
from vethlib.agent.planning import confine
from vethlib.agent.reconcile import configurator as configurator_module
from vethlib.agent.reconcile import occasions
from vethlib.agent.reconcile.passes import choice, reconcilepass
from vethlib.agent.reconcile.reporter import Reporter
from vethlib.agent.run.service import Service
from vethlib.agent.stores.files.directory import DirectoryStore
from vethlib.errors import InvalidValue

from .applying import interface, value
from .bad_references import fifo_with_a_writer
from .configuring import configured, is_state, pair, put, settle, state_of, states, until

HONEST = pair("a", "b", "blue")


@pytest.fixture
def configurator(session: Session) -> Iterator[Configurator]:
    with Configurator(session, label="values", limits=Limits(netns_made=3, queues=4, reason_chars=200)) as configurator:
        configurator.resync([])
        settle(configurator)
        yield configurator


def names_at(netns: str = "") -> set[str]:
    return {link["ifname"] for link in ip("link", netns=netns) or ()}


BAD: dict[str, Any] = {
    "enum.json": {"name": "x1", "namespace": {"type": 4294967296}},
    "list.json": [1] * 3000,
    "deep.json": "[" * 100_000,
    "digits.json": '{"name": "x2", "mtu": ' + "9" * 5000 + "}",
    "keys.json": {f"key{number}": number for number in range(3000)},
    "addresses.json": value("x3", "b", ip_addresses=["x"] * 3000),
    "queues.json": value("x4", "b", num_queues=4096),
    "escape.json": value("x5", "b", "n\n\x1b[31mX"),
    "lone.json": value("x6", "b", description="\ud800"),
    "secret.json": {"password": "hunter2", "data": {"key": "hunter2"}},
}


def test_a_directory_full_of_bad_values_keeps_nobody_from_being_built(tmp_path: Path, session: Session) -> None:
    store, said = tmp_path / "store", tmp_path / "status"
    store.mkdir()
    for name, bad in BAD.items():
        (store / name).write_text(bad if isinstance(bad, str) else json.dumps(bad))
    with open(store / "big.json", "wb") as big:
        big.truncate(1 << 40)
    os.mkfifo(store / "pipe.json")
    (store / "zero.json").symlink_to("/dev/zero")
    (store / "circle.json").symlink_to("circle.json")
    (store / "directory.json").mkdir()
    write(store / "honest.json", value("a", "b", "blue"), value("b", "a"))
    directory = DirectoryStore(store, status_dir=said)
    with closing(directory), Configurator(session, label="values") as configurator:
        service = Service(configurator, directory)
        for _ in range(50):
            service._step(0.0)
            if configured(configurator, "a", "b")():
                break
        assert configured(configurator, "a", "b")()
        service._step(1e9)
        invalid = {status.name for status in configurator.status() if status.state is State.INVALID}
    assert {"x1", "x2", "x3", "x4", "x5", "x6", "deep", "keys", "secret", "big", "pipe", "zero", "circle"} <= invalid
    assert "a" not in invalid
    assert "directory" not in invalid
    assert names_at("blue") >= {"a"}
    written = {entry.name: entry.read_text() for entry in said.iterdir() if entry.suffix == ".json"}
    assert 30 < len(written) < 60
    assert max(map(len, written.values())) < 10_000
    assert not any("hunter2" in text for text in written.values())
    assert set(ns.names()) == {"blue"}


def test_a_link_that_another_user_planted_shows_nothing_of_a_file_that_is_not_theirs(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps(value("hunter2", "b")))
    (store / "planted.json").symlink_to(secret)
    os.lchown(store / "planted.json", 4242, 4242)
    theirs = tmp_path / "theirs.json"
    theirs.write_text(json.dumps(value("c", "d")))
    os.chown(theirs, 4242, 4242)
    (store / "own.json").symlink_to(theirs)
    os.lchown(store / "own.json", 4242, 4242)
    data = store / "..2026_11_28"  # as a ConfigMap is laid out
    data.mkdir()
    write(data / "map.json", value("e", "f"))
    (store / "..data").symlink_to(data.name)
    (store / "map.json").symlink_to("..data/map.json")
    directory = DirectoryStore(store)
    (snapshot,) = directory.read()
    directory.close()
    values = snapshot.values  # type: ignore[union-attr]
    assert {name: one.interface is not None for name, one in values.items()} == {"planted": False, "c": True, "e": True}


@pytest.mark.parametrize("planted", ["file", "directory", "last of several", "swapped"])
def test_nor_does_one_that_is_planted_behind_a_link_of_root(tmp_path: Path, planted: str) -> None:
    store, theirs, secrets = (tmp_path / name for name in ("store", "theirs", "secrets"))
    for path in (store, theirs, secrets):
        path.mkdir()
    secret = secrets / "own.json"
    secret.write_text(json.dumps(value("hunter2", "b")))
    link = theirs / ("own" if planted == "directory" else "own.json")
    link.symlink_to(secrets if planted == "directory" else secret)
    os.lchown(link, 4242, 4242)
    way = theirs / "own" / "own.json" if planted == "directory" else link
    if planted == "last of several":
        (tmp_path / "current.json").symlink_to(way)
        way = tmp_path / "current.json"
    (store / "own.json").symlink_to(os.path.relpath(way, store))
    directory = DirectoryStore(store)
    (snapshot,) = directory.read()
    found = snapshot.values  # type: ignore[union-attr]
    assert {name: one.interface is not None for name, one in found.items()} == {"own": False}
    if planted == "swapped":  # for a file of theirs, which is what root's link is for
        link.unlink()
        link.write_text(json.dumps(value("c", "d")))
        (inner := theirs / "inner.json").symlink_to(link)
        for path in (link, inner):
            os.chown(path, 4242, 4242, follow_symlinks=False)
        (store / "inner.json").symlink_to(inner)
        directory.close()
        directory = DirectoryStore(store)
        (snapshot,) = directory.read()
        assert snapshot.values["c"].interface is not None  # type: ignore[union-attr]
    directory.close()


@pytest.mark.parametrize("command", ["validate", "complete -- get --store", "dump --store"])
def test_no_command_opens_a_pipe_in_a_directory_or_reads_for_others_what_they_may_not(
    vethctl: Vethctl, tmp_path: Path, command: str
) -> None:
    store, secret = tmp_path / "store", tmp_path / "secret.json"
    store.mkdir()
    words = [*command.split(), f"dir:{store}" if "--store" in command else str(store)]
    if "complete" in command:
        words.append("")
    with fifo_with_a_writer(store / "pipe.json") as waits:
        vethctl(*words)
        assert waits()
    (store / "pipe.json").unlink()
    secret.write_text(json.dumps(value("hunter2", "b")))
    (store / "own.json").symlink_to(secret)
    said = vethctl(*words)
    assert "hunter2" in said.out + said.err
    os.lchown(store / "own.json", 4242, 4242)
    said = vethctl(*words)
    assert "hunter2" not in said.out + said.err


def test_no_more_named_namespaces_are_created_than_the_limit_says(configurator: Configurator) -> None:
    names = [f"n{number}" for number in range(6)]
    for name in names:
        put(configurator, *pair(f"a{name}", f"b{name}", name))
    settle(configurator)
    assert set(ns.names()) == set(names[:3])
    assert {state_of(configurator, f"a{name}") for name in names[:3]} == {"CONFIGURED"}
    for name in names[3:]:
        assert state_of(configurator, f"b{name}") == f"PENDING: netns-limit(netns:{name})"
    for name in names[1:3]:  # what is created stays, so that others do not get its place
        configurator.delete(f"a{name}")
        configurator.delete(f"b{name}")
    settle(configurator)
    assert state_of(configurator, "an3").startswith("PENDING")
    for name in names[1:3]:
        ns.remove(name)
    configurator._observer.creatable._due = 0.0
    until(configurator, configured(configurator, "an3", "an4"))
    assert state_of(configurator, "an5").startswith("PENDING")
    assert set(ns.names()) == {"n0", "n3", "n4"}


def test_namespaces_that_are_there_are_used_whatever_the_limit(configurator: Configurator) -> None:
    for number in range(5):
        ns.Netns.create(f"there{number}").close()
        put(configurator, *pair(f"a{number}", f"b{number}", f"there{number}"))
    settle(configurator)
    assert all(text == "CONFIGURED" for text in states(configurator).values())


def test_an_interface_beyond_the_limits_is_invalid_and_its_last_value_stays_in_force(
    configurator: Configurator,
) -> None:
    put(configurator, *pair("c", "d", num_queues=4), *HONEST)
    settle(configurator)
    configurator.put(interface("c", "d", num_queues=5))
    configurator.put(interface("e", "f", num_queues=5))
    settle(configurator)
    assert is_state(configurator, State.INVALID, "c", "e")()
    assert configured(configurator, "a", "b", "d")()
    assert names_at() >= {"b", "c", "d"}


def test_no_reason_is_longer_than_the_limit(configurator: Configurator) -> None:
    configurator.refuse("x", [InvalidValue(f"field{number}", "y" * 100, "z" * 100) for number in range(1000)])
    settle(configurator)
    (status,) = configurator.status("x")
    assert status.state is State.INVALID
    assert len(status.reason) <= 200


def test_a_status_lists_some_of_any_number_of_addresses(configurator: Configurator) -> None:
    addresses = [f"10.0.{number >> 8}.{number & 255}/32" for number in range(400)]
    put(configurator, interface("a", "b", "blue", ip_addresses=addresses), interface("b", "a"))
    settle(configurator)
    (status,) = configurator.status("a")
    assert status.link is not None
    assert len(status.link.addresses) >= 400
    said = status.as_dict()
    assert len(said["addresses"]) == 256
    assert said["addresses_omitted"] == len(status.link.addresses) - 256


def test_an_interface_that_cannot_be_planned_is_retrying_alone(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(configurator, *HONEST, *pair("c", "d"), *pair("e", "f"))
    original = Interface.end

    def broken(self: Interface, **how: Any) -> Any:
        if self.name == "c":
            raise RecursionError
        return original(self, **how)

    monkeypatch.setattr(Interface, "end", broken)
    settle(configurator)
    assert configured(configurator, "a", "b", "e", "f")()
    assert is_state(configurator, State.RETRYING, "c", "d")()
    monkeypatch.undo()
    configurator.resync()
    until(configurator, configured(configurator, "c", "d"))


@pytest.mark.parametrize("call", ["create_many", "set", "delete_many"])
def test_an_operation_that_fails_as_nobody_foresaw_is_of_one_interface(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    put(configurator, *pair("c", "d"))
    if call != "create_many":
        put(configurator, *HONEST)
    settle(configurator)
    original = getattr(Session, call)

    def broken(self: Session, items: Any, *more: Any, **how: Any) -> Any:
        if call == "set":
            bad = items in ("c", "d")
        else:
            items = list(items)
            bad = any("c" in str(one) or "d" in str(one) for one in items)
        if bad:
            raise OverflowError("int too large to convert")
        return original(self, items, *more, **how)

    monkeypatch.setattr(Session, call, broken)
    if call == "create_many":
        configurator.delete("c")
        configurator.delete("d")
        settle(configurator)
        put(configurator, *pair("c", "d"), *HONEST)
        settle(configurator)
        assert configured(configurator, "a", "b")()
        assert is_state(configurator, State.RETRYING, "c", "d")()
    elif call == "set":
        put(configurator, *pair("c", "d", mtu=1400), *pair("a", "b", "blue", mtu=1400))
        settle(configurator)
        assert configured(configurator, "a", "b")()
        assert is_state(configurator, State.RETRYING, "c", "d")()
    else:
        for name in "abcd":
            configurator.delete(name)
        settle(configurator)
        assert names_at().isdisjoint({"a", "b"})
        assert names_at() >= {"c", "d"}
    monkeypatch.undo()
    configurator.resync()
    if call != "delete_many":
        until(configurator, configured(configurator, "a", "b", "c", "d"))
    else:
        until(configurator, lambda: names_at().isdisjoint({"c", "d"}))


def test_a_look_that_fails_as_nobody_foresaw_is_tried_again(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise KeyError("x")

    monkeypatch.setattr(reconcilepass.ReconcilePass, "_look", broken)
    put(configurator, *HONEST)
    configurator.poll(0)
    assert is_state(configurator, State.RETRYING, "a", "b")()
    assert state_of(configurator, "a") == "RETRYING: unforeseen"
    monkeypatch.undo()
    until(configurator, configured(configurator, "a", "b"))


def test_a_status_that_cannot_be_said_keeps_no_other_from_being_said(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Reporter._judge

    def broken(self: Reporter, name: str, *more: Any, **how: Any) -> Verdict | None:
        if name == "a":
            raise AttributeError
        return original(self, name, *more, **how)

    monkeypatch.setattr(Reporter, "_judge", broken)
    put(configurator, *HONEST)
    settle(configurator)
    assert configured(configurator, "b")()
    assert is_state(configurator, State.RETRYING, "a")()
    monkeypatch.undo()
    until(configurator, configured(configurator, "a"))


def test_what_was_not_foreseen_says_its_class_and_in_whose_work() -> None:
    error = confine.foreseen(ZeroDivisionError("secret"), "plan a")
    assert type(error) is confine.Unforeseen
    assert "ZeroDivisionError" in str(error)
    assert "secret" not in str(error)


# --- names


def test_a_namespace_is_not_created_under_a_name_that_a_terminal_obeys(home: ns.Netns) -> None:
    for name in ("n\n\x1b[31mX", "n\u202e", "n\x7f"):
        with pytest.raises(InvalidValue):
            ns.Netns.create(name)
    assert ns.names() == []


def test_what_others_have_called_so_is_seen_used_and_removed(session: Session) -> None:
    name = "n\x1b[31m"
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "-n", name, "link", "add", "x\x1b[5m", "type", "veth", "peer", "name", "y"], check=True)
    assert {link.name for link in session.links(name)} >= {"x\x1b[5m", "y"}
    assert session.lookup("x\x1b[5m", name).kind == "veth"
    with Configurator(session, label="values") as configurator:
        configurator.resync(HONEST)
        settle(configurator)
        assert configured(configurator, "a", "b")()
    session.set("x\x1b[5m", name, up=True)
    session.delete("x\x1b[5m", name)
    assert {link.name for link in session.links(name)} == {"lo"}
    ns.remove(name)
    assert ns.names() == ["blue"]


def test_many_addresses_of_one_interface_are_given_in_time_for_their_number(session: Session) -> None:
    def build(count: int) -> None:
        addresses = [f"10.{number >> 8}.{number & 255}.1/32" for number in range(count)]
        session.create(Veth(End("a", addresses=addresses), End("b")))
        session.delete("a")

    assert is_proportional(build, 100)


def _heavy(count: int) -> list[Interface]:
    """Pairs whose ends have a hundred addresses each."""
    ends = [(f"{at}{number}", f"10.{number}.{side}") for number in range(count) for side, at in enumerate("xy")]
    addresses = {name: [f"{prefix}.{last}/32" for last in range(100)] for name, prefix in ends}
    return [
        interface(name, ("y" if name[0] == "x" else "x") + name[1:], ip_addresses=addresses[name]) for name in addresses
    ]


def test_interfaces_with_many_addresses_wait_for_the_others_and_take_several_passes(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What addresses cost counts, or a file of a megabyte is one pass, in which nobody else has a turn."""
    monkeypatch.setattr(occasions, "AT_ONCE", 32)
    monkeypatch.setattr(configurator_module, "BUDGET", 0.0)
    heavy = _heavy(8)

    def built() -> int:
        return sum(configured(configurator, one.name)() for one in heavy)

    put(configurator, *heavy)
    put(configurator, *HONEST)
    configurator.poll(0)
    assert configured(configurator, "a", "b")()
    assert built() == 0
    until(configurator, built)
    assert built() <= 6
    settle(configurator)
    assert built() == len(heavy)
    # And so it is when they go.
    for one in heavy:
        configurator.delete(one.name)
    put(configurator, *pair("a", "b", "blue", mtu=1400))
    configurator.poll(0)
    assert seen("a", "blue")["mtu"] == 1400
    assert len(names_at() & {one.name for one in heavy}) == len(heavy)
    until(configurator, lambda: len(names_at() & {one.name for one in heavy}) < len(heavy))
    assert len(names_at() & {one.name for one in heavy}) >= len(heavy) - 6
    settle(configurator)
    assert names_at().isdisjoint({one.name for one in heavy})


def test_operations_with_many_addresses_are_carried_out_a_few_at_a_time(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configurator_module, "BUDGET", 0.0)
    monkeypatch.setattr(choice, "AT_ONCE", 40)
    heavy = _heavy(6)
    configurator.resync(heavy)
    configurator.poll(0)
    assert 0 < len(names_at() & {one.name for one in heavy}) <= 4
    settle(configurator)
    assert configured(configurator, *(one.name for one in heavy))()


def test_those_that_name_an_interface_or_want_its_name_cost_it_nothing(session: Session) -> None:
    """What is judged when something happens to an interface does not depend on how many values refer to it."""
    with Configurator(session, label="values") as configurator:
        crowd = [interface(f"n{number}", "a") for number in range(300)]
        crowd += [interface(f"c{number}", "b", "blue", host_if_name="a") for number in range(300)]
        configurator.resync([*HONEST, *crowd])
        settle(configurator)
        assert configured(configurator, "a", "b")()
        assert is_state(configurator, State.FAILED, "c0", "c299")()
        before = sum(configurator.tally.outcomes.values())
        ip("link", "set", "dev", "a", "down", netns="blue")
        until(configurator, lambda: "UP" in seen("a", "blue")["flags"])
        settle(configurator)
        assert sum(configurator.tally.outcomes.values()) - before < 20
        configurator.delete("a")
        settle(configurator)
        configurator.put(HONEST[0])
        until(configurator, configured(configurator, "a", "b"))


@pytest.mark.parametrize(
    "peer_of", [lambda n: n + 1, lambda n: (n + 1) % 400, lambda n: 0 if n else 1], ids=["chain", "ring", "star"]
)
def test_what_is_judged_with_an_interface_does_not_grow_with_a_chain_of_peers(
    session: Session, peer_of: Callable[[int], int]
) -> None:
    with Configurator(session, label="values") as configurator:
        configurator.resync([*HONEST, *(interface(f"s{number}", f"s{peer_of(number)}") for number in range(400))])
        settle(configurator)
        assert configured(configurator, "a", "b")()
        assert is_state(configurator, State.PENDING, "s10", "s399")()
        before = sum(configurator.tally.outcomes.values())
        configurator.put(interface("s10", f"s{peer_of(10)}", mtu=1400))
        settle(configurator)
        assert 0 < sum(configurator.tally.outcomes.values()) - before < 20
        # Once two of them point at each other, they are a pair.
        put(configurator, *pair("s20", "s21"))
        settle(configurator)
        assert configured(configurator, "s20", "s21")()
        code = "peer-not-configured" if peer_of(399) == 400 else "peer-points-elsewhere"
        assert state_of(configurator, "s399") == f"PENDING: {code}(s{peer_of(399)})"
        put(configurator, interface("s20", "s22"))
        settle(configurator)
        assert is_state(configurator, State.PENDING, "s20", "s21")()
        assert names_at().isdisjoint({"s20", "s21"})
