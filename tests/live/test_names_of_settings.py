"""No link is called "all" or "default", and the settings of the namespace are not taken for those of such a link."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.witness import ip, names
from vethlib import End, InvalidValue, NetlinkError, Session, Veth, ns
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
