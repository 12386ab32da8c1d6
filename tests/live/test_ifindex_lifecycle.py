"""What a cache may be used for, and what it needs and leaves behind."""

from __future__ import annotations

import errno
import gc
import os
import sys
import warnings
from collections.abc import Callable

import pytest

from tests.capabilities import CAP_NET_BROADCAST, CAP_SYS_ADMIN, dropped
from tests.live.test_session_lifecycle import failing, in_a_child
from tests.witness import ip, open_fds
from vethlib import NetlinkError, NotPermitted, Session, SessionClosed
from vethlib.ifindex import IfIndexCache


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
                with pytest.raises(
                    SessionClosed, match=f"belongs to process {os.getppid()}: after a fork, the child makes"
                ):
                    call()
            cache.close()
            with Session() as own, IfIndexCache(own) as another:
                another.watch("blue")
                assert another.index("va", "blue")

        assert in_a_child(child) == 0
        assert [event.kind for event in cache.poll()] == ["new"]
        ip("link", "del", "va", netns="blue")
        assert [event.kind for event in cache.poll()] == ["deleted"]


def test_an_unclosed_cache_warns_and_is_closed(session: Session, blue: str) -> None:
    before = open_fds()
    cache = IfIndexCache(session)
    cache.watch("blue")
    with pytest.warns(ResourceWarning, match=r"unclosed <vethlib.* close it, or use `with IfIndexCache\(…\)`"):
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
        ("vethlib.ifindex.observatory.RtnlSocket", errno.EMFILE, NetlinkError, r"watch namespaces: .*\(EMFILE\)"),
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


@pytest.mark.parametrize(
    ("capability", "text"),
    [
        (CAP_SYS_ADMIN, "making a network namespace needs CAP_SYS_ADMIN"),
        (CAP_NET_BROADCAST, "hearing the events of others needs CAP_NET_BROADCAST"),
    ],
)
def test_the_capability_that_is_missing_is_named(session: Session, capability: int, text: str) -> None:
    before = open_fds()
    with dropped(capability), pytest.raises(NotPermitted, match=f"^watch namespaces: {text}$") as caught:
        IfIndexCache(session)
    assert caught.value.errno == errno.EPERM
    assert open_fds() == before
