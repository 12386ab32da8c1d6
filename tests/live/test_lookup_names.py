"""Alternative names of any length identify a link wherever a name does; and the errors for names that do not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from tests.commands import Vethctl
from tests.refusing import raises
from tests.witness import ip, names, seen
from vethlib import (
    End,
    InvalidValue,
    LinkExists,
    LinkNotFound,
    NetnsExists,
    NetnsNotFound,
    Session,
    Veth,
    interface_index,
    ns,
)

LONG = "an-alternative-name-of-more-than-15-bytes"
LONGEST = "x" * 127
ODD = "a:long%name,ip;accepts~it"
SHORT = ["a:b", "a%d", ".", "b\udcff", "c\u202e"]


@pytest.fixture(params=[LONG, LONGEST, ODD, *SHORT], ids=ascii)
def altname(request: pytest.FixtureRequest, session: Session, blue: str) -> str:
    """va at home has it, vb is in blue."""
    session.create(Veth(End("va"), End("vb", blue)))
    ip("link", "property", "add", "dev", "va", "altname", request.param)
    return str(request.param)


def test_a_link_is_changed_by_an_alternative_name(session: Session, altname: str) -> None:
    index = seen("va")["ifindex"]
    assert session.set(altname, index=index, mtu=1400, new_name="vx", add_addresses=["10.0.0.1/24"]).name == "vx"
    assert (seen("vx")["mtu"], seen("vx")["ifindex"]) == (1400, index)
    assert session.set(altname, up=False).up is False
    assert session.set(altname, up=True, wait=30.0).up is True
    before = session.addresses()
    session.set(altname, addresses=[])
    session.restore_addresses(altname, addresses=[one for one in before if one.index == index])
    assert [str(one) for one in session.lookup(altname).addresses if one.version == 4] == ["10.0.0.1/24"]


@pytest.mark.needs_kernel("6.1")
def test_a_link_is_moved_by_an_alternative_name(session: Session, altname: str, blue: str) -> None:
    assert session.move(altname, to=blue).name == "va"
    assert names(blue) == {"va", "vb"}
    assert session.stats(altname, blue).rx_packets >= 0


def test_a_link_is_deleted_by_an_alternative_name(session: Session, altname: str, blue: str) -> None:
    session.delete(altname)
    assert names() == names(blue) == set()


def test_links_are_deleted_together_by_alternative_names(session: Session, altname: str, blue: str) -> None:
    session.create(Veth(End("vc"), End("vd", blue)))
    session.delete_many([(altname, ""), ("vc", "")], missing_ok=False)
    assert names() == names(blue) == set()


@pytest.mark.needs_kernel("6.1")
def test_vethctl_deletes_moves_and_shows_by_an_alternative_name(session: Session, blue: str, vethctl: Vethctl) -> None:
    session.create(Veth(End("va"), End("vb", blue)))
    ip("link", "property", "add", "dev", "va", "altname", LONG)
    for command in (["show", LONG], ["stats", LONG], ["move", LONG, blue], ["show", f"{LONG}@blue"]):
        said = vethctl(*command)
        assert said.code == 0, said.err
    assert vethctl("delete", f"{LONG}@blue").code == 0
    assert names(blue) == set()


def test_the_index_of_a_link_is_found_by_any_of_its_names(session: Session) -> None:
    session.create(Veth(End("a", altnames=["short", "x" * 127, "é" * 8]), End("b")))
    for name in ("a", "short", "x" * 127, "é" * 8):
        assert interface_index(name) == seen("a")["ifindex"]
    for name in ("y", "y" * 16):
        with raises(LinkNotFound):
            interface_index(name)
    for bad in ("", "a\0b", "\ud800"):
        with raises(InvalidValue, field="name"):
            interface_index(bad)


@pytest.mark.parametrize("kept", ["all", "some"])
def test_names_that_a_link_has_already_can_be_kept_whoever_gave_them(session: Session, altname: str, kept: str) -> None:
    ip("link", "property", "add", "dev", "va", "altname", "x:y")
    wanted = [*session.lookup("va").altnames, "new"] if kept == "all" else [altname, "new"]
    link = session.set("va", altnames=wanted)
    assert set(link.altnames) == set(wanted)
    assert set(seen("va")["altnames"]) == set(wanted)


@pytest.mark.parametrize("bad", ["a/b", "a b", "x:y", "%", "..", "c\x01", "d\u202e"])
def test_names_that_a_link_does_not_have_are_checked(session: Session, altname: str, bad: str) -> None:
    with raises(InvalidValue, field="altnames", value=bad):
        session.set("va", mtu=1400, altnames=[altname, "new", bad])
    assert (seen("va")["mtu"], seen("va")["altnames"]) == (1500, [altname])
    with raises(InvalidValue, field="altnames", value=bad):
        End("vx", altnames=["new", bad])


@pytest.mark.parametrize("bad", ["", "x" * 128, "a\0b"])
def test_what_can_be_no_name_at_all_is_refused(session: Session, bad: str) -> None:
    for call in (
        lambda: session.set(bad, up=True),
        lambda: session.move(bad, to="blue"),
        lambda: session.delete(bad),
        lambda: session.delete_many([(bad, "")]),
        lambda: session.restore_addresses(bad, addresses=[]),
    ):
        with pytest.raises(InvalidValue) as raised:
            call()
        assert raised.value.field == "name"


@pytest.mark.needs_kernel("6.1")
def test_a_move_says_which_name_is_taken_there(session: Session, altname: str, blue: str) -> None:
    ip("link", "property", "add", "dev", "vb", "altname", "other", netns=blue)
    ip("link", "property", "add", "dev", "va", "altname", "third")
    session.create(Veth(End("third", blue), End("vx", blue)))
    with pytest.raises(LinkExists, match="third"):
        session.move(altname, to=blue)
    assert "va" in names()


# --- an ifindex that is not the name's any more


def old_index(session: Session, blue: str) -> tuple[int, int]:
    session.create(Veth(End("va"), End("vb", blue)))
    old = seen("va")["ifindex"]
    session.delete("va")
    session.create(Veth(End("va"), End("vb", blue)))
    return old, seen("va")["ifindex"]


CALLS: dict[str, Callable[[Session, int], object]] = {
    "set": lambda session, old: session.set("va", index=old, up=False),
    "restore": lambda session, old: session.restore_addresses("va", index=old, addresses=[]),
    "delete": lambda session, old: session.delete_many([("va", "", old)], missing_ok=False),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_name_that_another_link_has_by_now_is_not_called_missing(session: Session, blue: str, call: str) -> None:
    old, new = old_index(session, blue)
    with pytest.raises((LinkNotFound, ExceptionGroup)) as raised:
        CALLS[call](session, old)
    error = raised.value.exceptions[0] if isinstance(raised.value, ExceptionGroup) else raised.value
    assert isinstance(error, LinkNotFound)
    assert error.index == new
    assert str(new) in str(error)
    assert str(old) in str(error)
    assert seen("va")["ifindex"] == new


@pytest.mark.parametrize("call", CALLS)
def test_a_name_that_nobody_has_is_missing(session: Session, home: ns.Netns, call: str) -> None:
    with pytest.raises((LinkNotFound, ExceptionGroup)) as raised:
        CALLS[call](session, 7)
    error = raised.value.exceptions[0] if isinstance(raised.value, ExceptionGroup) else raised.value
    assert isinstance(error, LinkNotFound)
    assert error.index is None


# --- something in /run/netns that is no namespace


def leave_link(target: str) -> None:
    os.symlink(target, "/run/netns/gone")


def leave_file(_target: str) -> None:
    os.close(os.open("/run/netns/gone", os.O_CREAT | os.O_EXCL, 0))


LEFT: dict[str, tuple[Callable[[str], None], str]] = {
    "a process that is gone": (leave_link, "/proc/4194304/ns/net"),
    "a file that is gone": (leave_link, "/run/nowhere"),
    "a name that is gone": (leave_link, "blue-that-was"),
    "a leftover file": (leave_file, ""),
}


@pytest.mark.parametrize("left", LEFT)
def test_what_is_no_namespace_and_has_the_name_is_to_be_removed_first(
    session: Session, blue: str, vethctl: Vethctl, left: str
) -> None:
    leave, target = LEFT[left]
    leave(target)
    with raises(NetnsNotFound, netns="netns:gone", taken=True) as missing:
        session.links("gone")
    assert target in str(missing.value)
    with raises(NetnsExists, unusable=True):
        ns.Netns.create("gone")
    for command in (["show", "@gone"], ["create", "a", "b@gone"], ["netns", "add", "gone"]):
        said = vethctl("--json", *command)
        assert said.code == 2
        assert "netns add" not in said.err
        assert "netns del" in json.loads(said.err.splitlines()[-1])["hint"]
    assert vethctl("netns", "del", "gone").code == 0
    ns.Netns.create("gone").close()
    session.links("gone")


def test_what_is_nowhere_can_be_made(session: Session, blue: str) -> None:
    with pytest.raises(NetnsNotFound) as missing:
        session.links("gone")
    assert not missing.value.taken
    with pytest.raises(NetnsExists) as exists:
        ns.Netns.create(blue)
    assert not exists.value.unusable


def test_a_link_to_nowhere_anywhere_else_is_called_one(session: Session, tmp_path: os.PathLike[str]) -> None:
    path = f"{tmp_path}/link"
    os.symlink("/proc/4194304/ns/net", path)
    with pytest.raises(NetnsNotFound, match="4194304") as missing:
        session.links(f"path:{path}")
    assert missing.value.taken
