"""What a cache may be used for, and what it needs and leaves behind."""

from __future__ import annotations

import contextlib
import errno
import gc
import signal
import sys
import warnings
from collections.abc import Callable
from types import CodeType
from typing import Any

import pytest

from tests.capabilities import CAP_NET_BROADCAST, CAP_SYS_ADMIN, dropped
from tests.interrupts import Interrupt, boundaries, interrupted
from tests.live.children import in_a_child
from tests.live.refusals import failing
from tests.refusing import raises
from tests.witness import ip, open_fds, poll
from vethlib import End, InvalidValue, NetlinkError, NotPermitted, Session, SessionClosed, Veth, VethError
from vethlib.ifindex import IfIndexCache
from vethlib.ifindex.watching import Watching


def test_a_forked_child_cannot_use_the_cache_and_the_parent_can(session: Session, blue: str) -> None:
    with IfIndexCache(session) as cache:
        cache.watch("blue")
        ip("link", "add", "name", "va", "type", "bridge", netns="blue")
        cache.catch_up()
        calls: list[Callable[[], object]] = [
            lambda: cache.index("va", "blue"),
            lambda: cache.name(1, "blue"),
            lambda: cache.links("blue"),
            lambda: cache.watch("blue"),
            cache.poll,
            cache.fileno,
        ]

        def child() -> None:
            for call in calls:
                with raises(SessionClosed, forked=True):
                    call()
            cache.close()
            with Session() as own, IfIndexCache(own) as another:
                another.watch("blue")
                assert another.index("va", "blue")

        assert in_a_child(child) == 0
        assert [event.kind for event in cache.poll()] == ["new"]
        ip("link", "del", "va", netns="blue")
        assert [event.kind for event in cache.poll()] == ["deleted"]


def test_a_cache_with_events_has_no_coalesced_changes_and_keeps_its_events(session: Session) -> None:
    with IfIndexCache(session) as cache:
        cache.watch("")
        ip("link", "add", "veth1", "type", "veth", "peer", "name", "veth2")
        with raises(InvalidValue, field="coalesce"):
            cache.changes()
        assert {event.link.name for event in cache.poll() if event.link} == {"veth1", "veth2"}


@pytest.mark.parametrize("size", [-1, 1 << 31, 1 << 40, "x", None, 4096.5, True, [4096]], ids=str)
def test_a_size_that_no_receive_buffer_has_is_refused(session: Session, size: Any) -> None:
    with raises(InvalidValue, field="receive_buffer"):
        IfIndexCache(session, receive_buffer=size)


@pytest.mark.parametrize("size", [0, 1, 4096, (1 << 31) - 1], ids=str)
def test_any_other_size_is_that_of_a_receive_buffer(session: Session, blue: str, size: int) -> None:
    with IfIndexCache(session, receive_buffer=size) as cache:
        cache.watch_all(["", "blue"])
        ip("link", "add", "veth1", "type", "veth", "peer", "name", "veth2", netns="blue")
        assert poll(lambda: any(event.link and event.link.name == "veth1" for event in cache.poll()))


def test_an_unclosed_cache_warns_and_is_closed(session: Session, blue: str) -> None:
    before = open_fds()
    cache = IfIndexCache(session)
    cache.watch("blue")
    with pytest.warns(ResourceWarning, match="unclosed <.*IfIndexCache"):
        del cache
    assert open_fds() == before


def test_a_child_that_forgets_the_cache_warns_of_nothing(session: Session) -> None:
    with IfIndexCache(session) as cache:
        caches = [cache]
        del cache

        def child() -> None:
            unraised: list[object] = []
            sys.unraisablehook = unraised.append
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                caches[0].__del__()
                caches.clear()
                gc.collect()
            assert unraised == []

        assert in_a_child(child) == 0


@pytest.mark.parametrize(
    ("name", "number", "kind", "text"),
    [
        ("vethlib.ifindex.news.os.eventfd", errno.EMFILE, NetlinkError, r"watch namespaces: .*raise `ulimit -n`"),
        ("vethlib.ifindex.news.select.epoll", errno.ENFILE, NetlinkError, r"watch namespaces: .*fs.file-max"),
    ],
)
def test_a_cache_that_could_not_start_has_nothing_to_warn_of(
    session: Session, monkeypatch: pytest.MonkeyPatch, name: str, number: int, kind: type[Exception], text: str
) -> None:
    before = open_fds()
    with monkeypatch.context() as patch, pytest.raises(kind, match=text):
        patch.setattr(name, failing(number))
        IfIndexCache(session)
    assert open_fds() == before


@pytest.mark.parametrize("netns", ["", "blue"])
def test_a_watch_that_could_not_begin_leaves_nothing_open(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch, netns: str
) -> None:
    with IfIndexCache(session) as cache:
        before = open_fds()
        with monkeypatch.context() as patch, pytest.raises(NetlinkError, match=r"watch .*\(EMFILE\)"):
            patch.setattr("vethlib.ifindex.observatory.RtnlSocket", failing(errno.EMFILE))
            cache.watch(netns)
        assert open_fds() == before
        assert cache.netns() == []
        cache.watch(netns)
        assert cache.index("lo", netns) == 1


@pytest.mark.parametrize(
    ("capability", "name"), [(CAP_SYS_ADMIN, "CAP_SYS_ADMIN"), (CAP_NET_BROADCAST, "CAP_NET_BROADCAST")]
)
def test_the_capability_that_is_missing_is_named_and_home_is_watched_without(
    session: Session, blue: str, capability: int, name: str
) -> None:
    with dropped(capability), IfIndexCache(session) as cache:
        cache.watch("")
        before = open_fds()
        for refs in (["blue"], ["", "blue"]):
            with raises(NotPermitted, capability=name, errno=errno.EPERM, request="watch namespaces"):
                cache.watch_all(refs)
        assert open_fds() == before
        assert cache.netns() == [""]
        session.create(Veth(End("a"), End("b")))
        assert {event.link.name for event in cache.poll() if event.link} == {"a", "b"}


def test_an_interruption_in_a_context_manager_of_the_library_leaves_the_cache_usable(session: Session) -> None:
    def belongs(code: CodeType) -> bool:
        return code.co_filename == contextlib.__file__ and code.co_qualname.startswith("_GeneratorContextManager.__e")

    def use() -> None:
        with IfIndexCache(session) as cache:
            try:
                cache.poll()
            except Interrupt:
                cache.poll()  # while the traceback is there
                raise

    use()
    each = boundaries(use, belongs)
    assert each
    assert all(interrupted(use, boundary) for boundary in each if boundary.code.co_name == "__enter__")
    for boundary in each:
        interrupted(use, boundary)


def test_a_signal_handler_that_interrupts_a_cache_may_use_the_session_but_not_the_cache(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.create(Veth(End("a", blue, up=False), End("b", up=False)))
    seen: list[object] = []

    def handler(*_: object) -> None:
        seen.append(session.lookup("a", blue).name)
        for use in (cache.poll, cache.close, lambda: cache.index("none", blue)):
            with pytest.raises(VethError):
                use()

    def interrupted(watching: Watching, most: float | None = None, **options: Any) -> bool:
        monkeypatch.undo()
        signal.raise_signal(signal.SIGUSR1)
        return watching.catch_up(most, **options)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with IfIndexCache(session) as cache:
            cache.watch(blue)
            monkeypatch.setattr(Watching, "catch_up", interrupted)
            assert cache.poll() == []
            assert cache.index("a", blue) == session.lookup("a", blue).index
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == ["a"]
