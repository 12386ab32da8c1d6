"""The settings of a namespace, or of a link that has just got the name of another, are not taken for those of a link.

No link is given the name "all" or "default", under which a namespace has its own settings.
"""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.live.sysctls import sysctl
from tests.refusing import raises
from tests.witness import ip, names, seen
from vethlib import End, InvalidValue, NetlinkError, Route, Session, Veth, ns
from vethlib.endfields.checks import Sysctl
from vethlib.session.core.settings import read_setting
from vethlib.session.methods import reading
from vethlib.session.read import further
from vethlib.session.write import linksteps
from vethlib.topology import parse

NAMES = ["all", "default"]


def settings(netns: str) -> dict[str, str]:
    """Return the settings of the whole namespace, of new links and of another link."""
    found = {}
    with ns.entered(netns):
        for path in Path("/proc/sys/net").glob("ipv[46]/conf/*/*"):
            if path.parent.name in ("all", "default", "other"):
                try:
                    found[str(path)] = path.read_text()
                except OSError:
                    pass
    return found


@pytest.fixture(params=NAMES)
def odd(request: pytest.FixtureRequest, session: Session, blue: str) -> str:
    """A link that another program has given such a name: it has no IPv6 settings, and is renamed without IPv4 ones."""
    session.create(Veth(End("a", "blue", up=False), End("other", "blue")))
    ip("link", "set", "dev", "a", "mtu", "1000", netns="blue")
    done = subprocess.run(["ip", "-n", "blue", "link", "set", "dev", "a", "name", request.param], check=False)
    if done.returncode:
        pytest.skip("this kernel refuses the name")
    return str(request.param)


@pytest.mark.parametrize("name", NAMES)
def test_no_link_is_given_such_a_name(session: Session, blue: str, red: str, name: str) -> None:
    session.create(Veth(End("a", "blue", mtu=1000), End("b", "blue")))
    asked: list[tuple[str, Any]] = [
        ("name", lambda: End(name)),
        ("new_name", lambda: session.set("a", "blue", new_name=name)),
        ("name", lambda: session.move("a", "blue", to="red", name=name)),
    ]
    for field, ask in asked:
        with pytest.raises(InvalidValue) as caught:
            ask()
        assert (caught.value.field, caught.value.value) == (field, name)
    with pytest.raises(InvalidValue):
        parse(f"x:{name} -- y")
    assert (names("blue"), names("red")) == ({"a", "b"}, set())


def rename_before(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> None:
    """Let the first call of this function of a module come just after another link has got the name of the first."""
    read = getattr(module, name)

    def read_renamed(*given: Any) -> Any:
        monkeypatch.setattr(module, name, read)
        for old, new in [("a", "e"), ("c", "a")]:
            ip("link", "set", "dev", old, "name", new, netns="blue")
        return read(*given)

    monkeypatch.setattr(module, name, read_renamed)


@pytest.mark.parametrize("field", ["sysctls", "offload"])
def test_the_settings_are_those_of_the_link_that_was_meant_though_its_name_goes_to_another(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    session.create(Veth(End("a", "blue", up=False, sysctls={"tag": 1}, offload=True), End("b", "blue", up=False)))
    session.create(Veth(End("c", "blue", up=False, sysctls={"tag": 2}, offload=False), End("d", "blue", up=False)))
    rename_before(monkeypatch, further, "read_setting")
    fields = session.fields("a", "blue", sysctls=["tag"] if field == "sysctls" else [])
    assert fields[field] == {"sysctls": (Sysctl("ipv4.tag", "1"),), "offload": True}[field]


def test_the_ipv6_settings_are_those_of_the_link_that_was_meant_though_its_name_goes_to_another(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.create(Veth(End("a", "blue", up=False), End("b", "blue", up=False)))
    session.create(Veth(End("c", "blue", up=False, ipv6=False), End("d", "blue", up=False)))
    rename_before(monkeypatch, reading, "read_settings")
    assert not session.ipv6_settings("a", "blue").disabled


@pytest.mark.parametrize(("read", "mtu"), [("read_all", 1000), ("read_setting", 1400)])
def test_an_undone_set_restores_the_ipv6_settings_of_the_link_that_was_meant_though_its_name_goes_to_another(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch, read: str, mtu: int
) -> None:
    session.create(Veth(End("a", "blue", up=False), End("b", "blue", up=False)))
    session.create(Veth(End("c", "blue", up=False, sysctls={"ipv6.hop_limit": 9}), End("d", "blue", up=False)))
    sysctl("blue", "ipv6/conf/c/mtu", "1300")
    rename_before(monkeypatch, linksteps, read)
    with pytest.raises(NetlinkError):
        session.set("a", "blue", mtu=mtu, routes=[Route("10.0.0.0/8", via="192.168.0.1")])
    assert (seen("e", "blue")["mtu"], seen("a", "blue")["mtu"]) == (1500, 1500)
    assert (sysctl("blue", "ipv6/conf/e/mtu"), sysctl("blue", "ipv6/conf/e/hop_limit")) == ("1500", "64")


def test_the_settings_of_a_link_that_is_renamed_all_the_time_cannot_be_read(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.create(Veth(End("a", "blue", up=False), End("b", "blue", up=False)))
    name, *further_names = (f"a{number}" for number in range(100))
    ip("link", "set", "dev", "a", "name", name, netns="blue")
    names_left = iter(further_names)

    def read_renamed(namespaces: Any, place: Any, name: str, *given: Any) -> Any:
        ip("link", "set", "dev", name, "name", next(names_left), netns="blue")
        return read_setting(namespaces, place, name, *given)

    monkeypatch.setattr(further, "read_setting", read_renamed)
    with raises(NetlinkError, errno=errno.EBUSY, netns="blue"):
        session.fields(name, "blue")


@pytest.mark.parametrize(
    "asked", [{"sysctls": {"forwarding": "1"}}, {"sysctls": {"ipv6.forwarding": "1"}}, {"ipv6": False}, {"ipv6": True}]
)
def test_a_change_of_a_link_of_such_a_name_does_not_change_the_namespace(
    session: Session, odd: str, asked: dict[str, Any]
) -> None:
    before = settings("blue")
    with pytest.raises((NetlinkError, InvalidValue)):
        session.set(odd, "blue", **asked)
    assert settings("blue") == before
    assert session.lookup(odd, "blue").name == odd


def test_the_settings_of_the_namespace_are_not_read_as_those_of_the_link(session: Session, odd: str) -> None:
    with pytest.raises(NetlinkError) as caught:
        session.fields(odd, "blue", sysctls=["forwarding"])
    assert "rename the link" in str(caught.value)
    with pytest.raises(NetlinkError):
        session.ipv6_settings(odd, "blue")


def test_such_a_link_is_listed_renamed_and_deleted(session: Session, odd: str) -> None:
    before = settings("blue")
    index = next(link["ifindex"] for link in ip("link", netns="blue") if link["ifname"] == odd)
    assert odd in {link.name for link in session.links("blue")}
    assert session.set(odd, "blue", alias="x", group=4, up=True).index == index
    assert session.dependents([("blue", index)])[0].ipv6_off is False
    session.set(odd, "blue", new_name="usual", up=False)
    assert names("blue") == {"usual", "other"}
    session.set("usual", "blue", group=0)
    ip("link", "set", "dev", "usual", "name", odd, netns="blue")
    session.delete(odd, "blue")
    assert names("blue") == set()
    kept = {path: value for path, value in before.items() if "/other/" not in path}
    assert settings("blue") == kept


@pytest.mark.parametrize("moved", [False, True])
def test_a_link_of_such_a_name_can_be_renamed_while_something_else_is_changed(
    session: Session, odd: str, red: str, moved: bool
) -> None:
    before = settings("blue")
    ip("link", "set", "dev", odd, "mtu", "1500", netns="blue")
    if moved:
        session.move(odd, "blue", to="red", name="usual")
        assert (names("blue"), names("red")) == ({"other"}, {"usual"})
    else:
        session.set(odd, "blue", mtu=1000, new_name="usual")
        assert names("blue") == {"usual", "other"}
    assert settings("blue") == before
