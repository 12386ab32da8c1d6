"""Marks that a tenant writes on links in its own namespace: they cost the agent no more than any other links do."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable

import pytest

from tests.live.applying import interface
from tests.live.configuring import configured, put, settle, until
from tests.witness import ip, seen
from vethlib import Session
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.session.read.further import Asked

LABEL = "vpp1"
FORGED = 30


@pytest.mark.parametrize(
    ("kind", "mark"),
    [
        ("veth", "vethlib label=other name=x{} more=routes,neighbours"),
        ("veth", f"vethlib label={LABEL} name=x{{}} more=routes,neighbours"),
        ("bridge", f"vethlib label={LABEL} name=a more=routes,neighbours"),
    ],
)
def test_fields_of_links_that_the_agent_cannot_have_built_are_not_read(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch, kind: str, mark: str
) -> None:
    commands = [f"link add x{number} type {kind}" for number in range(FORGED)]
    commands += [f'link set x{number} alias "{mark.format(number)}"' for number in range(FORGED)]
    subprocess.run(["ip", "-n", blue, "-batch", "-"], input="\n".join(commands), text=True, check=True)
    asked: list[int] = []
    fields_many = Session.fields_many

    def noted(session: Session, links: Iterable[Asked]) -> object:
        links = list(links)
        asked.extend(index for _, index, _ in links)
        return fields_many(session, links)

    monkeypatch.setattr(Session, "fields_many", noted)
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
