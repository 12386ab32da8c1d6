"""Marks that a tenant writes on links in its own namespace: they cost the agent no more than any other links do."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from typing import Any

import pytest

from tests.live.applying import interface
from tests.live.configuring import configured, put, settle, until
from tests.witness import ip, seen
from vethlib import Session
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.session.read.further import Asked

LABEL = "vpp1"
FORGED = 30


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ifindexes of the links whose fields are read."""
    asked: list[int] = []
    fields_many = Session.fields_many

    def noted(session: Session, links: Iterable[Asked], **options: object) -> object:
        links = list(links)
        asked.extend(index for _, index, _ in links)
        return fields_many(session, links, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "fields_many", noted)
    return asked


@pytest.mark.parametrize(
    ("kind", "mark"),
    [
        ("veth", "vethlib label=other name=x{} more=routes,neighbours"),
        ("veth", f"vethlib label={LABEL} name=x{{}} more=routes,neighbours"),
        ("bridge", f"vethlib label={LABEL} name=a more=routes,neighbours"),
    ],
)
def test_fields_of_links_that_the_agent_cannot_have_built_are_not_read(
    session: Session, blue: str, asked: list[int], kind: str, mark: str
) -> None:
    commands = [f"link add x{number} type {kind}" for number in range(FORGED)]
    commands += [f'link set x{number} alias "{mark.format(number)}"' for number in range(FORGED)]
    subprocess.run(["ip", "-n", blue, "-batch", "-"], input="\n".join(commands), text=True, check=True)
    with Configurator(session, label=LABEL) as configurator:
        with_route = interface("a", "b", blue, routes=[{"dst": "10.9.0.0/24"}], ip_addresses=["10.0.0.1/24"])
        put(configurator, with_route, interface("b", "a"))
        until(configurator, configured(configurator, "a", "b"))
        configurator.resync()
        settle(configurator)
        assert set(asked) == {seen("a", blue)["ifindex"]}
        put(configurator, interface("a", "b", blue, ip_addresses=["10.0.0.1/24"]))
        until(configurator, lambda: not ip("route", "show", "proto", "118", netns=blue))
        until(configurator, configured(configurator, "a", "b"))


MANY = 300
BELIEVED = 64


@pytest.mark.parametrize("further", [{}, {"routes": [{"dst": "10.9.0.0/24"}]}])
def test_only_some_links_with_the_mark_of_a_configured_interface_are_read(
    session: Session, blue: str, asked: list[int], further: dict[str, Any]
) -> None:
    with Configurator(session, label=LABEL) as configurator:
        put(configurator, interface("a", "b", blue, ip_addresses=["10.0.0.1/24"], **further), interface("b", "a"))
        until(configurator, configured(configurator, "a", "b"))
        commands = [f"link add x{number} type veth peer name y{number}" for number in range(MANY // 2)]
        commands += [
            f'link set {end}{number} alias "vethlib label={LABEL} name=a more=routes"'
            for number in range(MANY // 2)
            for end in "xy"
        ]
        subprocess.run(["ip", "-n", blue, "-batch", "-"], input="\n".join(commands), text=True, check=True)
        settle(configurator)
        del asked[:]
        configurator.resync()
        settle(configurator)
        assert len(set(asked)) <= BELIEVED + 1
        assert not further or seen("a", blue)["ifindex"] in asked
        assert configured(configurator, "a", "b")()


def test_a_renamed_link_is_known_by_its_mark_among_others(session: Session, blue: str) -> None:
    with Configurator(session, label=LABEL) as configurator:
        with_route = interface("a", "b", blue, routes=[{"dst": "10.9.0.0/24"}], ip_addresses=["10.0.0.1/24"])
        put(configurator, with_route, interface("b", "a"))
        until(configurator, configured(configurator, "a", "b"))
        index = seen("a", blue)["ifindex"]
        commands = [f"link add x{number} type veth peer name y{number}" for number in range(8)]
        commands += [f'link set x{number} alias "vethlib label={LABEL} name=a more=routes"' for number in range(8)]
        commands.append("link set dev a name other")
        subprocess.run(["ip", "-n", blue, "-batch", "-"], input="\n".join(commands), text=True, check=True)
        until(configurator, lambda: "a" in [one["ifname"] for one in ip("link", netns=blue)])
        until(configurator, configured(configurator, "a", "b"))
        assert seen("a", blue)["ifindex"] == index
        assert [one["dst"] for one in ip("route", "show", "proto", "118", netns=blue)] == ["10.9.0.0/24"]
