"""A Link is the same link also where its name and ifindex repeat: in a namespace that was created again, or in its own.

The first link of each container has one name and one ifindex, before and after a restart. The same is true of the home
namespaces of two sessions. In the same namespace, also in home, the ifindex of a deleted link is free for one that is
moved there.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest

from tests.live.reused_identity import foreign_link, replaced, without_cookies
from tests.refusing import raises
from tests.witness import ip, names, seen, settled
from vethlib import BatchError, End, IfIndexCache, Link, LinkNotFound, Netns, Session, Veth, ns
from vethlib.links import Dependents
from vethlib.monitor import Monitor

ETH0 = End("eth0", "blue", addresses=["10.0.0.1/24"])


def only_error(call: Callable[[], object]) -> None:
    """Raise the error of the only item of a call with many."""
    try:
        call()
    except BatchError as failed:
        (error,) = failed.exceptions
        raise error from None


def only_missing(found: object, missing: object) -> None:
    """Raise LinkNotFound if a call has found what it finds for a missing link."""
    if found == missing:
        raise LinkNotFound("missing")


def in_cache(session: Session, link: Link, call: Callable[[IfIndexCache], object]) -> None:
    with IfIndexCache(session) as cache:
        cache.watch(link.netns)
        call(cache)


def in_monitor(session: Session, link: Link) -> None:
    with Monitor(session, [str(link.netns)]) as monitor:
        assert monitor.peer(str(link.netns), link.index)
        only_missing(monitor.peer(link), None)


CALLS: dict[str, Callable[[Session, Link], object]] = {
    "delete": lambda session, link: session.delete(link),
    "delete_many": lambda session, link: only_error(partial(session.delete_many, [link], missing_ok=False)),
    "delete_many by ifindex": lambda session, link: only_error(
        partial(session.delete_many, [link], missing_ok=False, renamed_ok=True)
    ),
    "delete_many with only_if": lambda session, link: only_error(
        partial(session.delete_many, [link], missing_ok=False, only_if=lambda *_: True)
    ),
    "set one": lambda session, link: session.set(link, mtu=1300),
    "set several": lambda session, link: session.set(link, mtu=1300, alias="x", up=True),
    "set_many one": lambda session, link: only_error(partial(session.set_many, [link], mtu=1300)),
    "set_many several": lambda session, link: only_error(partial(session.set_many, [link], mtu=1300, alias="x")),
    "move": lambda session, link: session.move(link, to=""),
    "restore_addresses": lambda session, link: session.restore_addresses(link, addresses=[]),
    "renew_addresses": lambda session, link: session.renew_addresses(link, addresses=[]),
    "remove_dependents": lambda session, link: session.remove_dependents(link),
    "fields": lambda session, link: session.fields(link),
    "ipv6_settings": lambda session, link: session.ipv6_settings(link),
    "lookup": lambda session, link: session.lookup(link),
    "lookup_many": lambda session, link: session.lookup_many([link]),
    "lookup_many without addresses": lambda session, link: session.lookup_many([link], addresses=False),
    "index": lambda session, link: session.index(link),
    "details": lambda session, link: session.details(link),
    "stats": lambda session, link: session.stats(link),
    "stats_many": lambda session, link: session.stats_many([link]),
    "stats_many of what exists": lambda session, link: only_missing(
        session.stats_many([link], missing_ok=True), [None]
    ),
    "inspect": lambda session, link: only_missing(session.inspect([link]).links, []),
    "inspect among others": lambda session, link: only_missing(
        [found.link.name for found in session.inspect([link, (link.netns, "lo")]).links], ["lo"]
    ),
    "dependents": lambda session, link: only_missing(session.dependents([link]), [Dependents()]),
    "IfIndexCache.index": lambda session, link: in_cache(session, link, lambda cache: cache.index(link)),
    "IfIndexCache.link": lambda session, link: in_cache(session, link, lambda cache: cache.link(link)),
    "IfIndexCache.name": lambda session, link: in_cache(session, link, lambda cache: cache.name(link)),
    "Monitor.peer": in_monitor,
}

# A namespace is given along with the link: it is there now. "borne" is a former name.
OTHERS = {"PacketPort", "Node", "borne"}

SOURCES: dict[str, Callable[[Session], Link]] = {
    "create": lambda session: session.create(Veth(ETH0, End("a"))).a,
    "create without reading": lambda session: session.create(Veth(ETH0, End("a")), read=False).a,
    "create, the other end": lambda session: session.create(Veth(End("a"), ETH0)).b,
    "survey": lambda session: _created(session, lambda: _surveyed(session.survey(["blue"]))),
    "lookup": lambda session: _created(session, lambda: session.lookup("eth0", "blue")),
    "lookup_many": lambda session: _created(session, lambda: session.lookup_many([ETH0], addresses=False)[0]),
    "lookup_many with addresses": lambda session: _created(session, lambda: session.lookup_many([ETH0])[0]),
    "links": lambda session: _created(session, lambda: session.links("blue")[1]),
    "a cache": lambda session: _created(session, lambda: _cached(session)),
    "set": lambda session: _created(session, lambda: session.set("eth0", "blue", alias="y")),
    "set several": lambda session: _created(session, lambda: session.set("eth0", "blue", alias="y", mtu=1400)),
    "move": lambda session: _moved(session),
}


def _created(session: Session, read: Callable[[], Link]) -> Link:
    session.create(Veth(ETH0, End("a")))
    return read()


def _surveyed(survey: Any) -> Link:
    (link,) = [found.link for found in survey.links if found.link.name == "eth0"]
    assert isinstance(link, Link)
    return link


def _cached(session: Session) -> Link:
    with IfIndexCache(session) as cache:
        cache.watch("blue")
        return cache.link("eth0", "blue")


def _moved(session: Session) -> Link:
    session.create(Veth(End("eth0"), End("a")))
    return session.move("eth0", to="blue")


def as_after_a_restart(link: Link) -> dict[str, Any]:
    """Create the namespace again, with another program's link of that name and ifindex; return its state."""
    replaced("blue")
    foreign_link(link.name, link.index, "blue")
    ip("address", "add", "10.9.9.9/24", "dev", link.name, netns="blue")
    return settled(seen(link.name, "blue"))


def made_with_its_index(link: Link) -> dict[str, Any]:
    """Replace a link in its namespace by another program's of that name and ifindex; return its state."""
    place = str(link.netns)
    ip("link", "delete", "dev", link.name, netns=place)
    foreign_link(link.name, link.index, place)
    return settled(seen(link.name, place))


def moved_in(link: Link, peer_index: int = 999) -> dict[str, Any]:
    """Replace a link by another program's that is moved in from elsewhere; return its state."""
    place = str(link.netns)
    ip("link", "delete", "dev", link.name, netns=place)
    for name in ("new", "newer"):  # each with one end: both may have the same ifindex
        Netns.create(name).close()
    theirs = ("type", "veth", "peer", "name", "theirs", "index", str(peer_index), "netns", "newer")
    ip("link", "add", "name", link.name, "index", str(link.index), *theirs, netns="new")
    ip("link", "set", "dev", link.name, "netns", place or str(os.getpid()), netns="new")
    return settled(seen(link.name, place))


REPLACED: dict[str, Callable[[Link], dict[str, Any]]] = {
    "made with its index": made_with_its_index,
    "moved in": moved_in,
}


def is_not_found_after_a_restart(session: Session, link: Link, call: str) -> None:
    before = as_after_a_restart(link)
    with pytest.raises(LinkNotFound):
        CALLS[call](session, link)
    assert settled(seen("eth0", "blue")) == before


@pytest.mark.parametrize("call", CALLS)
def test_a_link_of_another_namespace_is_not_taken_for_it(session: Session, blue: str, call: str) -> None:
    is_not_found_after_a_restart(session, SOURCES["create"](session), call)


@pytest.mark.parametrize("cookies", [True, False])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("call", ["delete", "delete_many", "set one", "set several", "lookup"])
def test_it_does_not_matter_which_call_has_returned_it(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch, source: str, call: str, cookies: bool
) -> None:
    if not cookies:
        without_cookies(monkeypatch)
    is_not_found_after_a_restart(session, SOURCES[source](session), call)


@pytest.mark.parametrize("cookies", [True, False])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("replace", REPLACED)
@pytest.mark.parametrize("call", ["delete", "delete_many", "set one", "set several", "set_many one", "move", "lookup"])
def test_a_link_that_has_replaced_it_in_the_same_namespace_is_not_taken_for_it(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch, source: str, replace: str, call: str, cookies: bool
) -> None:
    if not cookies:
        without_cookies(monkeypatch)
    link = SOURCES[source](session)
    before = REPLACED[replace](link)
    assert before["ifindex"] == link.index
    with pytest.raises(LinkNotFound):
        CALLS[call](session, link)
    assert settled(seen("eth0", blue)) == before


@pytest.mark.parametrize("call", ["delete", "set one", "lookup"])
def test_nor_is_one_whose_peer_has_the_ifindex_of_the_former_peer_in_another_namespace(
    session: Session, blue: str, call: str
) -> None:
    link = SOURCES["lookup"](session)
    assert link.peer_index is not None
    before = moved_in(link, link.peer_index)
    assert before["link_index"] == link.peer_index
    with pytest.raises(LinkNotFound):
        CALLS[call](session, link)
    assert settled(seen("eth0", blue)) == before


@pytest.mark.needs_kernel("5.14")
@pytest.mark.parametrize("source", SOURCES)
def test_every_call_that_returns_a_link_knows_its_namespace(session: Session, blue: str, source: str) -> None:
    assert SOURCES[source](session).cookie == session.cookie(blue)
    assert {link.cookie for link in session.links()} == {session.cookie()}


@pytest.mark.needs_kernel("5.14")
def test_so_do_the_events_of_a_cache(session: Session, blue: str) -> None:
    with IfIndexCache(session) as cache:
        cache.watch_all(["", blue])
        session.create(Veth(ETH0, End("a")))
        session.set("eth0", blue, alias="x")
        links = [link for event in cache.poll() for link in (event.link, event.old) if link is not None]
        assert {(link.netns, link.cookie) for link in links} == {("", session.cookie()), (blue, session.cookie(blue))}


@pytest.mark.needs_kernel("5.14")
def test_a_link_with_the_mac_and_the_peer_of_the_former_one_is_not_taken_for_it(session: Session, blue: str) -> None:
    mac = "02:00:00:00:00:07"
    veth = Veth(End("eth0", blue, mac=mac), End("a", blue))
    old = session.create(veth).a
    replaced(blue)
    new = session.create(veth).a
    assert old == new
    for call in ("delete", "set one", "move", "lookup"):
        with raises(LinkNotFound):
            CALLS[call](session, old)
    assert session.set(new, mtu=1300).mtu == 1300
    session.delete(new)


@pytest.mark.parametrize("call", ["index", "link"])
def test_a_cache_does_not_take_a_link_of_another_namespace_for_it(session: Session, blue: str, call: str) -> None:
    link = SOURCES["create"](session)
    with IfIndexCache(session) as cache:
        cache.watch(blue)
        assert cache.index(link) == link.index
        as_after_a_restart(link)
        cache.unwatch(blue)
        cache.watch(blue)
        with pytest.raises(LinkNotFound):
            getattr(cache, call)(link)
        assert getattr(cache, call)("eth0", blue)


OTHERS_CHANGE: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "its MAC": lambda: ip("link", "set", "dev", "eth0", "address", "02:00:00:00:00:77", netns="blue"),
    "its peer": lambda: ip("link", "set", "dev", "a", "netns", "red"),  # which gets another ifindex there
}


@pytest.mark.parametrize("cookies", [True, False])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("change", OTHERS_CHANGE)
def test_a_link_that_others_have_changed_is_the_same(
    session: Session,
    blue: str,
    red: str,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    change: str,
    cookies: bool,
) -> None:
    if not cookies:
        without_cookies(monkeypatch)
    link = SOURCES[source](session)
    foreign_link("taken", seen("a")["ifindex"], red)
    OTHERS_CHANGE[change]()
    assert session.lookup(link).index == session.index(link) == link.index
    assert session.lookup_many([link])[0].index == link.index
    assert session.stats_many([link])[0].index == link.index
    assert session.set(link, mtu=1300).mtu == 1300
    assert session.set(link, mtu=1400, alias="x").alias == "x"
    session.set_many([link], mtu=1301)
    session.delete(link)
    assert names(blue) == set()


@pytest.mark.needs_kernel("5.14")
def test_so_is_one_whose_peer_was_unknown_when_it_was_read(session: Session, blue: str) -> None:
    with IfIndexCache(session) as cache:
        cache.watch(blue)
        ip("link", "add", "name", "a", "type", "veth", "peer", "name", "eth0", "netns", blue)
        link = cache.link("eth0", blue)
        assert link.peer_index is None
    OTHERS_CHANGE["its MAC"]()
    assert session.lookup(link).index == link.index
    assert session.set(link, mtu=1300).mtu == 1300
    session.delete(link)


def test_a_link_that_was_moved_is_found_where_it_is_now(session: Session, blue: str, red: str) -> None:
    old = session.create(Veth(ETH0, End("a"))).a
    ip("link", "set", "dev", "eth0", "netns", red, netns=blue)
    with raises(LinkNotFound):
        session.set(old, mtu=1300)
    assert session.set(old, red, mtu=1300).mtu == 1300
    moved = session.move(old, red, to=blue)
    assert session.set(moved, mtu=1301).mtu == 1301
    session.delete(old)
    assert names() == set()


def test_the_cookie_of_a_link_is_neither_shown_nor_compared(session: Session, blue: str) -> None:
    created = session.create(Veth(End("eth0", blue, up=False), End("a", up=False)))
    looked_up = session.lookup_many([created.a], addresses=False)[0]
    assert created.a == looked_up
    assert repr(created.a) == repr(looked_up)
    assert created.a.cookie == session.cookie(blue)


# --- every call that takes a Link, where neither ifindexes nor peers tell two links apart


def containers(session: Session, place: str = "blue") -> Link:
    """Create a pair as of two new containers, blue and red, with a route over it; return its end in blue.

    Or one between home and a container.
    """
    for name in ("blue", "red"):
        if name in ns.names():
            ns.remove(name)
        Netns.create(name).close()
    link = session.create(Veth(End("eth0", place, up=True, addresses=["10.0.0.1/24"]), End("eth0", "red"))).a
    ip("route", "add", "10.7.0.0/16", "via", "10.0.0.2", netns=place)
    return link


@contextmanager
def restarted(session: Session) -> Iterator[tuple[Session, Link]]:
    containers(session)
    link = session.lookup("eth0", "blue")
    new = containers(session)
    assert (new.index, new.peer_index, new.peer_netnsid) == (link.index, link.peer_index, link.peer_netnsid)
    yield session, link


@contextmanager
def watched(session: Session) -> Iterator[tuple[Session, Link]]:
    """Restart the containers of a Link whose namespace is known, and have a cache watch the new one."""
    link = containers(session)
    containers(session)
    with IfIndexCache(session) as cache:
        cache.watch("blue")
        yield session, link


@contextmanager
def replaced_there(
    session: Session, replace: Callable[[Link], object], place: str = "blue", *, watching: bool = False
) -> Iterator[tuple[Session, Link]]:
    """Replace the link in its namespace by another program's, with a cache that watches it meanwhile or without one."""
    containers(session, place)
    with ExitStack() as opened:
        if watching:
            opened.enter_context(IfIndexCache(session)).watch(place)
        link = session.lookup("eth0", place)
        replace(link)
        yield session, link


@contextmanager
def another_home(session: Session) -> Iterator[tuple[Session, Link]]:
    """Return a session in another home, and a Link of the home of the first: the first links of both homes."""
    with ExitStack() as opened:
        links = []
        for each in ("box1", "box2"):
            Netns.create(each).close()
            with ns.entered(each):
                other = opened.enter_context(Session())
            links.append(other.create(Veth(End("eth0", addresses=["10.0.0.1/24"]), End("eth1"))).a)
            with ns.entered(each):
                ip("route", "add", "10.7.0.0/16", "via", "10.0.0.2")
        assert links[0].index == links[1].index
        yield other, links[0]


SITUATIONS: dict[str, tuple[Callable[[Session], AbstractContextManager[tuple[Session, Link]]], bool]] = {
    "restarted": (restarted, True),
    "restarted, on an old kernel": (restarted, False),
    "restarted and watched": (watched, True),
    "in another home": (another_home, True),
    "made with its index": (partial(replaced_there, replace=made_with_its_index), True),
    "made with its index, on an old kernel": (partial(replaced_there, replace=made_with_its_index), False),
    "moved in": (partial(replaced_there, replace=moved_in), True),
    "moved in, watched": (partial(replaced_there, replace=moved_in, watching=True), True),
    "made in home with its index": (partial(replaced_there, replace=made_with_its_index, place=""), True),
    "moved to home": (partial(replaced_there, replace=moved_in, place=""), True),
    "moved to home, on an old kernel": (partial(replaced_there, replace=moved_in, place=""), False),
    "moved to home, watched": (partial(replaced_there, replace=moved_in, place="", watching=True), True),
}
NEEDS_COOKIES = {"in another home"}  # where both peers have the same ifindex


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "situation",
    [
        pytest.param(each, marks=[pytest.mark.needs_kernel("5.14")] if each in NEEDS_COOKIES else [])
        for each in SITUATIONS
    ],
)
def test_no_call_that_takes_a_link_means_another_one_with_its_name_and_ifindex(
    session: Session, monkeypatch: pytest.MonkeyPatch, situation: str, call: str
) -> None:
    situate, cookies = SITUATIONS[situation]
    if not cookies:
        without_cookies(monkeypatch)
    with situate(session) as (using, link):
        place = "box2" if situation == "in another home" else str(link.netns)
        before = settled(seen("eth0", place))
        with pytest.raises(LinkNotFound):
            CALLS[call](using, link)
        assert settled(seen("eth0", place)) == before


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("cookies", [True, False])
@pytest.mark.parametrize("place", ["", "blue"])
def test_every_call_that_takes_a_link_means_the_link_itself(
    session: Session, monkeypatch: pytest.MonkeyPatch, call: str, cookies: bool, place: str
) -> None:
    if not cookies:
        without_cookies(monkeypatch)
    containers(session, place)
    CALLS[call](session, session.lookup("eth0", place))


@pytest.mark.parametrize("cookies", [True, False])
@pytest.mark.parametrize("change", ["its MAC", "its peer"])
def test_a_link_in_home_whose_mac_or_peer_others_have_changed_is_the_same(
    session: Session, red: str, monkeypatch: pytest.MonkeyPatch, change: str, cookies: bool
) -> None:
    if not cookies:
        without_cookies(monkeypatch)
    link = session.create(Veth(End("eth0"), End("a"))).a
    if change == "its MAC":
        ip("link", "set", "dev", "eth0", "address", "02:00:00:00:00:77")
    else:
        foreign_link("taken", seen("a")["ifindex"], red)
        ip("link", "set", "dev", "a", "netns", red)
    for call, method in CALLS.items():
        if not call.startswith(("delete", "dependents", "Monitor")):
            method(session, link)
    session.delete(link)
    assert names() == set()


def test_the_table_has_every_call_that_takes_a_link() -> None:
    taking = {
        name if cls is Session else f"{cls.__name__}.{name}"
        for cls in (Session, IfIndexCache, Monitor)
        for name, method in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_")
        and any(
            word in str(parameter.annotation)
            for parameter in inspect.signature(method).parameters.values()
            for word in ("LinkRef", "Item", "| Link", "Link |")
        )
    }
    covered = {call.split()[0] for call in CALLS}
    assert taking - covered == OTHERS & taking
