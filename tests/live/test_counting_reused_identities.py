"""A namespace may get the identity of one that has ended: its links have neither rates nor names of the former ones."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

import pytest

from tests.commands import runner
from tests.live.reused_identity import with_identity_again, without_cookies
from tests.witness import ip, names, seen
from vethlib import End, Netns, Session, Veth, ns
from vethlib.cli.host.link_rates import LinkRates
from vethlib.rates import Meter, rates

pytestmark = pytest.mark.needs_kernel("5.14")  # which has cookies

REFS = {"blue": "of the same name", "red": "of another name"}


@pytest.fixture(params=REFS, ids=list(REFS.values()))
def successor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def replace(session: Session, blue: str, successor: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Replace blue, which has the link old, by a successor with its identity, whose link new has the same ifindex."""
    session.create(Veth(End("old", blue), End("a")))
    index = seen("old", blue)["ifindex"]

    def replaced() -> None:
        former = session.identity(blue)
        ns.remove(blue)
        Netns.create(successor).close()
        with_identity_again(monkeypatch, successor, former)
        theirs = ["type", "veth", "peer", "name", "theirs", "netns", str(os.getpid())]
        ip("link", "add", "name", "new", "index", str(index), *theirs, netns=successor)
        ip("link", "set", "dev", "lo", "up", netns=successor)
        ns.run(successor, ["ping", "-q", "-c", "3", "-i", "0.01", "127.0.0.1"], capture_output=True, check=True)

    return replaced


def test_counters_of_whole_namespaces_have_no_rate(
    session: Session, blue: str, successor: str, replace: Callable[[], None]
) -> None:
    meter = Meter()
    before = session.stats_in([blue])[blue]
    assert not isinstance(before, Exception)
    assert meter.read(before) == [None, None]
    replace()
    after = session.stats_in([successor])[successor]
    assert not isinstance(after, Exception)
    assert [each.link for each in after] == [each.link for each in before]
    assert [rates(*pair) for pair in zip(before, after, strict=True)] == [None, None]
    assert meter.read(after) == [None, None]


def test_counters_of_links_have_no_rate(
    session: Session, blue: str, successor: str, replace: Callable[[], None]
) -> None:
    before = session.stats_many([("old", blue), ("lo", blue)])
    replace()
    after = session.stats_many([("new", successor), ("lo", successor)])
    assert [each.place for each in after] == [each.place for each in before]
    assert [rates(*pair) for pair in zip(before, after, strict=True)] == [None, None]


def test_a_link_is_not_shown_under_the_name_of_a_former_one(
    session: Session, blue: str, successor: str, replace: Callable[[], None]
) -> None:
    sampled = LinkRates(session)
    assert {link.name for link in sampled.sample(whole=[blue])} == {"lo", "old"}
    assert all(link.rates is not None for link in sampled.sample(whole=[blue]))
    replace()
    links = sampled.sample(whole=[successor])
    assert {(link.ref, link.name, link.rates) for link in links} == {(successor, "lo", None), (successor, "new", None)}
    assert all(link.rates is not None for link in sampled.sample(whole=[successor]))


def test_a_watch_shows_the_links_of_the_successor_as_new(
    session: Session,
    successor: str,
    replace: Callable[[], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = [replace]
    monkeypatch.setattr(time, "sleep", lambda _seconds: left.pop()() if left else None)
    said = runner(capsys, monkeypatch)("stats", "--watch", "--count", "2", "--interval", "0.1", "--json")
    lines = [json.loads(line) for line in said.out.splitlines()]
    of_blue = [line for line in lines if line["netns"] and line["index"] is not None]
    assert {(line["netns"], line["name"]) for line in of_blue} == {
        (f"netns:{successor}", each) for each in names(successor)
    }
    assert next(line for line in of_blue if line["name"] == "new")["rates"] is None


def test_without_cookies_there_are_rates_nevertheless(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_cookies(monkeypatch)
    session.create(Veth(End("old", blue), End("a")))
    sampled = LinkRates(session)
    for refs in ([blue], [blue]):
        links = sampled.sample(whole=refs)
    assert {link.name: link.rates is not None for link in links} == {"lo": True, "old": True}
