"""Ends that take any free name with a certain prefix."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.live.older_kernel import without_echo
from tests.witness import host_state, ip, names, seen
from vethlib import BatchError, End, InvalidValue, LinkExists, NetnsNotFound, Session, Veth, ns
from vethlib.session.read import reading
from vethlib.session.write.creating import freenames


def test_the_first_free_name_is_taken(session: Session, blue: str) -> None:
    session.create(Veth(End("veth0"), End("veth2", "blue", altnames=["veth1"])))
    pair = session.create(Veth(End("veth*"), End("veth*", "blue", addresses=["10.0.0.1/24"])), wait=60.0)
    assert [link.name for link in pair] == ["veth1", "veth0"]
    assert seen("veth1")["ifindex"] == pair.a.index
    assert seen("veth0", "blue")["ifindex"] == pair.b.index
    assert session.create(Veth(End("x"), End("veth*", "blue"))).b.name == "veth3"


@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize("echo", [True, False])
def test_both_ends_take_names_in_one_namespace(
    session: Session, monkeypatch: pytest.MonkeyPatch, read: bool, echo: bool
) -> None:
    if not echo:
        without_echo(monkeypatch)
    given: dict[str, Any] = {"up": False, "ipv6": False, "mtu": 1400}
    pair = session.create(Veth(End("v*", **given), End("v*", **given)), read=read)
    assert [link.name for link in pair] == ["v0", "v1"]
    assert {link.name: link.index for link in pair} == {name: seen(name)["ifindex"] for name in ("v0", "v1")}
    assert all(seen(name)["mtu"] == 1400 for name in ("v0", "v1"))


def test_many_pairs_pass_over_what_is_taken_and_what_others_of_them_are_called(session: Session, blue: str) -> None:
    for name in ("veth3", "veth70"):
        ip("link", "add", name, "type", "bridge", netns="blue")
    veths = [Veth(End("veth*", "blue", up=False), End("other*", up=False)) for _ in range(100)]
    veths.append(Veth(End("veth5", "blue", up=False), End("x", up=False)))
    pairs = session.create_many(veths)
    expected = [f"veth{number}" for number in range(103) if number not in (3, 5, 70)]
    assert [pair.a.name for pair in pairs] == [*expected, "veth5"]
    assert [pair.b.name for pair in pairs] == [*(f"other{number}" for number in range(100)), "x"]
    assert names("blue") == {"veth3", "veth70", "veth5", *expected}


def test_a_name_that_the_call_needs_as_an_alternative_one_is_not_taken(session: Session, blue: str) -> None:
    a, b = session.create(Veth(End("x*", "blue", altnames=["x1"]), End("y", "netns:blue", altnames=["x0"])))
    assert (a.name, b.name) == ("x2", "y")
    assert [seen(name, "blue")["altnames"] for name in ("x2", "y")] == [["x1"], ["x0"]]


def test_a_name_that_the_call_needs_in_another_namespace_only_is_taken(
    session: Session, blue: str, red: str, spawn: Callable[[str], int]
) -> None:
    pid = spawn("blue")
    pair = session.create(Veth(End("q*", "blue"), End("q0", "red", altnames=["q1"])))
    assert [link.name for link in pair] == ["q0", "q0"]
    with ns.Netns.open("blue") as held:
        veths = [
            Veth(End("q*", "netns:blue"), End("q4", "blue")),
            Veth(End("q*", "red"), End("q1", held)),
            Veth(End("q*", "blue"), End("q2", f"pid:{pid}", altnames=["q3"])),
        ]
        # The last of them are built later, when the first have names.
        veths += [Veth(End("f*", "red", up=False), End("f*", up=False)) for _ in range(80)]
        veths += [Veth(End("q5", f"pid:{pid}", up=False), End("f2", "red", altnames=["f4"], up=False))]
        pairs = session.create_many(veths)
    assert [pair.a.name for pair in pairs[:3]] == ["q6", "q2", "q7"]
    assert [pair.a.name for pair in pairs[3:7]] == ["f0", "f1", "f3", "f5"]
    assert [pair.b.name for pair in pairs[3:83]] == [f"f{number}" for number in range(80)]
    assert {"q0", "q1", "q2", "q4", "q5", "q6", "q7"} == names("blue")


def test_a_namespace_that_does_not_exist_affects_its_own_pair_only(session: Session, blue: str) -> None:
    veths = [Veth(End("q*", "blue"), End("x")), Veth(End("q0", "nowhere"), End("y"))]
    with pytest.raises(BatchError) as refused:
        session.create_many(veths, on_error="continue")
    (error,) = refused.value.exceptions
    assert isinstance(error, NetnsNotFound)
    assert names("blue") == {"q0"}


def with_names_taken_meanwhile(monkeypatch: pytest.MonkeyPatch, take: Callable[[], object]) -> None:
    """Let others take names after the first look at those that are taken."""
    table, looks = reading.table, iter([True])

    def look(*args: Any) -> Any:
        links = table(*args)
        if next(looks, False):
            take()
        return links

    monkeypatch.setattr(freenames, "table", look)


def test_a_name_that_is_taken_meanwhile_is_not_insisted_on(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_names_taken_meanwhile(monkeypatch, lambda: ip("link", "add", "veth1", "type", "bridge", netns="blue"))
    pairs = session.create_many([Veth(End("veth*", "blue"), End(f"v{number}")) for number in range(4)])
    made = [pair.a.name for pair in pairs]
    assert "veth1" not in made
    assert names("blue") == {"veth1", *made}
    assert len(set(made)) == 4


def test_a_name_that_was_given_is_insisted_on(session: Session, blue: str) -> None:
    session.create(Veth(End("taken"), End("x")))
    before = host_state()
    with pytest.raises(LinkExists) as refused:
        session.create_many([Veth(End("veth*", "blue"), End("y")), Veth(End("veth*", "blue"), End("taken"))])
    assert "'taken'" in str(refused.value)
    assert host_state() == before


@pytest.mark.parametrize("on_error", ["rollback", "continue"])
def test_a_beginning_of_which_every_name_is_taken_is_refused(session: Session, blue: str, on_error: Any) -> None:
    veths = [Veth(End("uplink-to-isp-*", "blue", up=False), End(f"v{number}", up=False)) for number in range(11)]
    with pytest.raises((LinkExists, BatchError)) as refused:
        session.create_many(veths, on_error=on_error)
    if isinstance(refused.value, BatchError):
        (error,) = refused.value.exceptions
        assert isinstance(error, LinkExists)
        assert error.item is veths[10]
        assert names("blue") == {f"uplink-to-isp-{number}" for number in range(10)}
    else:
        assert names("blue") == names() == set()


def test_several_threads_get_different_names(session: Session, blue: str) -> None:
    def create(number: int) -> list[str]:
        veths = [Veth(End("veth*", "blue", up=False), End(f"v{number}-{each}", up=False)) for each in range(10)]
        return [pair.a.name for pair in session.create_many(veths)]

    with ThreadPoolExecutor(4) as threads:
        made = [name for several in threads.map(create, range(4)) for name in several]
    assert len(set(made)) == 40
    assert names("blue") == set(made)


def test_such_an_end_is_no_link(session: Session, blue: str) -> None:
    session.create(Veth(End("veth*", "blue"), End("x")))
    for call in (session.lookup, session.delete, session.index):
        with pytest.raises(InvalidValue) as refused:
            call(End("veth*", "blue"))
        assert refused.value.field == "name"
    with pytest.raises(InvalidValue):
        session.delete_many([End("veth*", "blue")])
    with pytest.raises(InvalidValue):
        session.inspect([End("veth*", "blue")])
    with pytest.raises(InvalidValue) as refused:
        session.set("x", new_name="veth*")
    assert refused.value.field == "new_name"


@pytest.mark.parametrize("name", ["*", "a*b/*", "x" * 15 + "*", "%*"])
def test_a_beginning_must_make_sense(name: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        End(name)
    assert refused.value.field == "name"
