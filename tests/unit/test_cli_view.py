"""The links of a host as commands find them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tests.proportion import is_proportional
from tests.refusing import raises
from vethlib import Link, LinkNotFound, ns
from vethlib.cli.host.view import View
from vethlib.session.read.survey import Survey, SurveyedLink


def surveyed(place: int, index: int, name: str, *altnames: str) -> SurveyedLink:
    link = Link(index, name, "", "veth", "02:00:00:00:00:01", 1500, True, "up", (), None, None, "", 0, 1)
    return SurveyedLink((4, place), f"ns{place}", replace(link, altnames=altnames), ())


def view(links: list[SurveyedLink]) -> View:
    session: Any = SimpleNamespace(survey=lambda _: Survey({one.ref: one.at for one in links}, links))
    return View(session)


@pytest.fixture(autouse=True)
def _no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ns, "names", list)


def test_a_link_is_found_by_its_name_or_an_alternative_name_in_its_namespace_only() -> None:
    links = [surveyed(1, 2, "a", "uplink"), surveyed(2, 2, "b"), surveyed(2, 3, "a")]
    host = view(links)
    assert [host.find(name, ref, "show") for name, ref in [("a", "ns1"), ("uplink", "ns1"), ("a", "ns2")]] == [
        links[0],
        links[0],
        links[2],
    ]
    assert host.within("ns2") == links[1:]
    with raises(LinkNotFound, netns="ns2"):
        host.find("uplink", "ns2", "show")


def test_many_links_and_namespaces_are_found_in_proportional_time() -> None:
    def work(number: int) -> None:
        host = view([surveyed(place, 2, "eth0") for place in range(number)])
        for place in range(number):
            assert len(host.within(f"ns{place}")) == 1
            host.find("eth0", f"ns{place}", "show")

    assert is_proportional(work, 250)
