"""An interruption at every bytecode of a session's changes: nothing is left half-done, and all that is held is let go.

The bytecodes are recorded once. Then each is interrupted in a run of its own, from many processes at once, because most
of a run is waiting for the kernel to unregister a pair.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import CO_GENERATOR
from typing import NamedTuple

import pytest

import vethlib
from tests.interrupts import Boundary, boundaries, distinct, in_processes, interrupted
from tests.live.older_kernel import without_echo
from vethlib import BatchError, End, Link, LinkExists, Session, Veth, ns
from vethlib.session.write import grouped

pytestmark = pytest.mark.slow

PACKAGE = os.path.dirname(vethlib.__file__)
PROCESSES = 12
STRESS = bool(os.environ.get("VETHLIB_STRESS_SECONDS"))
WARM = 8
"""Runs after which the layouts of all messages are known, mostly."""
ALIKE = 3
"""Runs that have to come to a bytecode before it is interrupted."""
OF_A_LOOP = 3
"""How often a bytecode is interrupted of the loops over the 65 features of a link, which only look at bits."""
MISSED = 0.1
"""The share of the bytecodes that a run may pass by: which way it goes depends on when the kernel says what, too."""


class Host:
    """Two namespaces of one process, whose thread is in the first; and a session that is not interrupted."""

    def __init__(self, session: Session, blue: str) -> None:
        self.session = session
        self.blue = blue
        self.witness = Session()

    def names(self) -> set[str]:
        """Return the links in home, independently of vethlib; each pair here has an end in home."""
        with open("/proc/thread-self/net/dev") as file:
            return {line.split(":")[0].strip() for line in file.readlines()[2:]} - {"lo"}

    def links(self) -> dict[str, Link]:
        """The links of either namespace."""
        return {link.name: link for netns in ("", self.blue) for link in self.witness.links(netns) if link.name != "lo"}

    def clear(self) -> None:
        self.witness.delete_many([(name, "") for name in self.names()])


@contextmanager
def new_host() -> Iterator[Host]:
    """Two new namespaces, and a session at home in the first of them."""
    with ns.Netns.anonymous() as home, ns.Netns.anonymous() as blue, home.entered(), Session() as session:
        host = Host(session, f"fd:{blue.fileno()}")
        try:
            yield host
        finally:
            host.witness.close()


class Case(NamedTuple):
    """An action, its preconditions, a check after its interruption, and the place of the interruption."""

    operation: Callable[[Host], object]
    before: Callable[[Host], object]
    wrong: Callable[[Host], object]
    everywhere: tuple[str, ...]
    """The files whose every bytecode is interrupted each time that it is executed; those of others the first time."""
    nowhere_else: bool = False
    leaving: int = 0
    """How many bytecodes the public method is left by when all is done; at none of them an interpreter looks."""


def nothing(host: Host) -> None:
    if host.names():
        host.clear()


def create(host: Host) -> object:
    return host.session.create(Veth(End("a"), End("b")))


def create_unread(host: Host) -> object:
    return host.session.create(Veth(End("a"), End("b", host.blue, up=False)), read=False)


def create_all(host: Host) -> object:
    return host.session.create_many(
        [
            Veth(End("a", up=True, addresses=["10.0.0.1/24"], alias="x"), End("b", host.blue, up=True)),
            Veth(End("c", group=3), End("d")),
        ]
    )


def fail(host: Host) -> None:
    """The second pair cannot be made, so the first is taken back."""
    with pytest.raises(LinkExists):
        host.session.create_many([Veth(End("a"), End("b", host.blue)), Veth(End("x"), End("lo"))])


def go_on(host: Host) -> None:
    """The second pair is created, but not as requested."""
    with pytest.raises(BatchError) as caught:
        host.session.create_many(
            [Veth(End("a"), End("b", host.blue)), Veth(End("c", addresses=["::1/128"]), End("d"))],
            on_error="continue",
        )
    assert [pair.a.name for pair in caught.value.created] == ["a"]


GROUPS = {"a": 5, "b": 6, "c": 7, "d": 8}
ADDRESSES = {"a": ["10.0.0.1/24", "10.0.0.2/24"], "b": [], "c": ["10.0.1.1/24"], "d": ["10.0.2.1/24", "10.0.3.1/24"]}


def two_pairs(host: Host) -> None:
    if len(host.names()) < 4:
        host.clear()
        a, b, c, d = (End(name, group=group, addresses=ADDRESSES[name]) for name, group in GROUPS.items())
        host.witness.create_many([Veth(a, b), Veth(c, d)])


def delete_many(host: Host) -> None:
    host.session.delete_many([("a", ""), ("d", "")])


def _ipv4(link: Link) -> list[str]:
    return [str(address) for address in link.addresses if address.version == 4]


def marked(host: Host) -> object:
    found = {link.name: (link.group, _ipv4(link)) for link in host.witness.links("")}
    expected = {name: (group, ADDRESSES[name]) for name, group in GROUPS.items()}
    return {name: found[name] for name in found.keys() & expected if found[name] != expected[name]}


def three_together(host: Host) -> None:
    if len(host.names()) < 6 or regrouped(host):
        host.clear()
        host.witness.create_many([Veth(End(one), End(other)) for one, other in ("ba", "cd", "xy")], together=True)


def delete_many_together(host: Host) -> None:
    host.session.delete_many([("a", ""), ("d", "")])


def regrouped(host: Host) -> object:
    """The link that stays is moved to another group only if the others are deleted."""
    groups = {name: link.group for name, link in host.links().items() if name in ("a", "d", "y")}
    return groups if len(set(groups.values())) > 1 else None


def one_pair(host: Host) -> None:
    if not host.names():
        host.witness.create(Veth(End("a", up=True, addresses=["10.0.0.1/24", "fd00::1/64"]), End("b")))
    link = host.witness.lookup("a")
    if link.mtu != 1500:
        host.witness.set("a", mtu=1500, up=True, group=0, addresses=["10.0.0.1/24", "fd00::1/64"])


def change(host: Host) -> object:
    return host.session.set("a", mtu=1400, group=4, up=False, add_addresses=["10.0.1.1/24"])


def half_changed(host: Host) -> object:
    link = host.witness.lookup("a")
    fields = (link.mtu, link.group, link.up, [str(one) for one in link.addresses if not one.is_link_local])
    old = (1500, 0, True, ["10.0.0.1/24", "fd00::1/64"])
    new = (1400, 4, False, ["10.0.0.1/24", "10.0.1.1/24"])
    return None if fields in (old, new) else fields


def change_one(host: Host) -> object:
    return host.session.set("a", mtu=1400)


def half_changed_one(host: Host) -> object:
    """One message is sent, so that the change is made or not."""
    link = host.witness.lookup("a")
    fields = (link.up, link.group, [str(one) for one in link.addresses if not one.is_link_local])
    return None if fields == (True, 0, ["10.0.0.1/24", "fd00::1/64"]) and link.mtu in (1400, 1500) else link


def one_at_home(host: Host) -> None:
    if "a" not in host.names():
        host.clear()
        host.witness.create(Veth(End("a", addresses=["10.0.0.1/24"]), End("b")))


def move(host: Host) -> object:
    return host.session.move("a", to=host.blue)


def move_renamed(host: Host) -> object:
    return host.session.move("a", to=host.blue, name="c")


def half_moved(host: Host, new_name: str = "a") -> object:
    names = {"": "a", host.blue: new_name}
    there = [(netns, link) for netns, name in names.items() for link in host.witness.links(netns) if link.name == name]
    if len(there) != 1:
        return there
    ((netns, link),) = there
    addresses = [str(one) for one in link.addresses if not one.is_link_local]
    return None if addresses == ([] if netns else ["10.0.0.1/24"]) else link


CREATING = ("session/methods/base.py", "session/methods/creating.py")
CHANGING = ("session/methods/base.py", "session/methods/changing.py")


def create_with_free_names(host: Host) -> object:
    return host.session.create(Veth(End("a*", offload=False), End("a*", sysctls={"rp_filter": 2})))


def one_with_offload(host: Host) -> None:
    if not host.names():
        host.witness.create(Veth(End("a"), End("b")))
    host.witness.set("a", mtu=1500, offload=True)


def switch_off(host: Host) -> object:
    return host.session.set("a", mtu=1400, offload=False)


def half_switched(host: Host) -> object:
    found = host.witness.lookup("a").mtu, host.witness.fields("a")["offload"]
    return None if found in ((1500, True), (1400, False)) else found


SESSION = (*CREATING, "session/write/creating/create.py", "session/core/undo.py")
BUILDING = tuple(f"session/write/creating/{name}.py" for name in ("building", "configuring", "job"))
CASES = {
    "create": Case(create, nothing, Host.names, (*SESSION, *BUILDING, "_nl/sock.py"), leaving=1),
    "create_many": Case(create_all, nothing, Host.names, (*SESSION, *BUILDING), nowhere_else=True, leaving=1),
    "create without an echo": Case(
        create,
        nothing,
        Host.names,
        ("session/write/creating/create.py", *BUILDING),
        nowhere_else=True,
        leaving=1,
    ),
    "rollback": Case(fail, nothing, Host.names, (*SESSION, "session/write/delete.py"), nowhere_else=True),
    "continue": Case(go_on, nothing, Host.names, SESSION, nowhere_else=True, leaving=24),
    "delete_many": Case(
        delete_many,
        two_pairs,
        marked,
        (*CREATING, "session/write/delete.py", "session/write/grouped.py", "_nl/sock.py"),
    ),
    "delete together": Case(delete_many_together, three_together, regrouped, ("session/write/grouped.py",)),
    "set": Case(change, one_pair, half_changed, (*CHANGING, "session/write/change.py", "session/write/linksteps.py")),
    "set of one": Case(
        change_one,
        one_pair,
        half_changed_one,
        (*CHANGING, "session/write/setting.py", "_nl/direct.py", "_nl/sock.py"),
    ),
    "create without reading": Case(create_unread, nothing, Host.names, BUILDING, nowhere_else=True, leaving=1),
    "move and rename": Case(
        move_renamed,
        one_at_home,
        partial(half_moved, new_name="c"),
        (*CHANGING, "session/write/move.py"),
        nowhere_else=True,
    ),
    "free names": Case(
        create_with_free_names,
        nothing,
        Host.names,
        (*BUILDING, "session/write/creating/freenames.py", "session/core/settings.py", "session/core/features.py"),
        nowhere_else=True,
        leaving=1,
    ),
    "offload": Case(
        switch_off, one_with_offload, half_switched, (*CHANGING, "session/core/settings.py", "session/core/features.py")
    ),
    "move": Case(move, one_at_home, half_moved, (*CHANGING, "session/write/move.py"), nowhere_else=True),
}


def chosen(case: Case, found: Iterable[Boundary]) -> list[Boundary]:
    """Return the bytecodes of the case; under stress all of them, each time that they are executed."""
    paths = tuple(os.path.join(PACKAGE, file) for file in case.everywhere)
    assert all(map(os.path.exists, paths))

    def belongs(one: Boundary) -> bool:
        if one.code.co_filename not in paths:
            return one.visit == 1 and not case.nowhere_else
        return one.visit <= OF_A_LOOP or not one.code.co_qualname.startswith("_Features.")

    return [one for one in found if STRESS or belongs(one)]


def boundaries_of(case: Case) -> list[Boundary]:
    """Return the bytecodes that the operation comes to each time when nothing is new to it."""
    with new_host() as host:
        warm_up(case, host)
        runs: list[list[Boundary]] = []
        for _ in range(ALIKE):
            case.before(host)
            runs.append(boundaries(lambda: case.operation(host), lambda code: code.co_filename.startswith(PACKAGE)))
    others = [set(run) for run in runs[:-1]]
    return [boundary for boundary in runs[-1] if all(boundary in run for run in others)]


def warm_up(case: Case, host: Host) -> None:
    for _ in range(WARM):
        case.before(host)
        case.operation(host)


def interrupt_each(case: Case, mine: list[Boundary], left_by: list[Boundary]) -> list[str]:
    """Interrupt these bytecodes; return what is wrong then. Links may stay after those by which the method is left."""
    found: list[str] = []
    with new_host() as host:
        warm_up(case, host)
        inode = os.stat("/proc/thread-self/ns/net").st_ino
        gc.collect()
        descriptors = len(os.listdir("/proc/self/fd"))
        missed: list[Boundary] = []
        for boundary in mine:
            case.before(host)
            if not interrupted(lambda: case.operation(host), boundary):
                if not boundary.code.co_flags & CO_GENERATOR:  # the end of one swallows it
                    missed.append(boundary)
            elif (wrong := case.wrong(host)) and boundary not in left_by:
                found.append(f"{wrong} after {boundary}")
            if os.stat("/proc/thread-self/ns/net").st_ino != inode:
                return [*found, f"in another namespace after {boundary}"]
            if host.session._home.socket._lock._is_owned():  # type: ignore[union-attr]
                return [*found, f"locked after {boundary}"]
        gc.collect()
        left = len(os.listdir("/proc/self/fd")) - descriptors
    if len(missed) > MISSED * len(mine):
        found += [f"not reached: {boundary}" for boundary in missed]
    return [*found, f"{left} descriptors more than before"] if left else found


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", CASES)
def test_an_interruption_at_any_bytecode_leaves_nothing_half_done(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "create without an echo":
        without_echo(monkeypatch)
    monkeypatch.setattr(grouped, "MANY", 2)
    case = CASES[name]
    at = chosen(case, boundaries_of(case))
    left_by = [one for one in at[len(at) - case.leaving :] if one.code.co_qualname.startswith("CreatingSession.create")]
    each = at if STRESS else distinct(at)
    assert each

    def interrupt_some(number: int) -> list[str]:
        return interrupt_each(case, each[number::PROCESSES], left_by)

    assert in_processes(PROCESSES, interrupt_some, 300.0) == []
