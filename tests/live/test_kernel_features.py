"""The features of the kernel that doctor tries: each is found where it is, and missed where it is not."""

from __future__ import annotations

import errno
import os
import platform
import socket
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from tests.live.older_kernel import without_echo
from tests.witness import ip
from vethlib import addresses, ns
from vethlib._nl.addr import new_addr
from vethlib._nl.link import set_link
from vethlib._nl.sock import RtnlSocket
from vethlib.cli.commands import doctor
from vethlib.cli.host import event_cost as event_cost_module
from vethlib.cli.host import kernel_features
from vethlib.cli.host.event_cost import event_cost
from vethlib.cli.host.kernel_features import FEATURES, Feature
from vethlib.errors import NotPermitted

pytestmark = pytest.mark.usefixtures("home")


def found() -> dict[Callable[[], bool], bool]:
    """Whether each feature was found, by the probe that tries it."""
    findings = kernel_features.kernel_features()
    return {feature.probe: finding.ok for feature, finding in zip(FEATURES, findings, strict=True)}


def refuse(*_: object) -> int:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


@pytest.mark.parametrize(
    "feature",
    [pytest.param(one, marks=pytest.mark.needs_kernel(one.since), id=one.probe.__name__) for one in FEATURES],
)
def test_a_feature_of_this_kernel_is_found(feature: Feature) -> None:
    assert found()[feature.probe]


def test_no_feature_is_judged_by_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = found()
    monkeypatch.setattr(platform, "release", lambda: "3.0")
    assert found() == before


def test_processes_that_cannot_be_opened_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_features, "pidfd_open", refuse)
    answers = found()
    assert not answers[kernel_features._opens_pidfds]
    assert not answers[kernel_features._opens_pidfds_of_threads]


def test_cookies_that_are_not_given_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RtnlSocket, "netns_cookie", lambda self: 0)
    assert not found()[kernel_features._has_cookies]


def test_strict_checking_that_is_refused_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old(socket.socket):
        setsockopt = refuse  # type: ignore[assignment]

    monkeypatch.setattr(socket, "socket", Old)
    assert not found()[kernel_features._checks_dumps_strictly]


def test_an_echo_that_does_not_come_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    without_echo(monkeypatch, kernel_features)
    assert not found()[kernel_features._echoes_creations]


def test_addresses_that_lose_their_mark_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        kernel_features, "new_addr", lambda index, address, length, proto: new_addr(index, address, length)
    )
    assert not found()[kernel_features._marks_addresses]


def test_a_rename_that_is_refused_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_features, "set_link", lambda index, name: set_link(index, name=b"lo"))
    assert not found()[kernel_features._renames_links_that_are_up]


def test_without_privilege_the_version_decides_and_the_detail_tells_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: object) -> None:
        raise NotPermitted("creating a network namespace needs CAP_SYS_ADMIN")

    monkeypatch.setattr(ns, "call_in_new", refused)
    monkeypatch.setattr(platform, "release", lambda: "6.1.0-49-amd64")
    findings = {finding.what: finding for finding in kernel_features.kernel_features()}
    assert (findings["kernel ≥ 5.18"].ok, findings["kernel ≥ 6.2"].ok) == (True, False)
    assert "CAP_SYS_ADMIN" in findings["kernel ≥ 6.2"].detail


def test_nothing_is_left_of_what_was_tried() -> None:
    found()
    assert [link["ifname"] for link in ip("link")] == ["lo"]
    assert ns.names() == []


# --- what listeners cost


def test_an_event_takes_some_microseconds_and_measuring_that_changes_nothing_here() -> None:
    before = ip("link")
    assert 0 <= ns.call_in_new(event_cost) < 0.1
    assert ip("link") == before


def test_doctor_says_what_an_event_takes_the_kernel() -> None:
    (finding,) = doctor._listeners()
    assert (finding.what, finding.needed) == ("link events", False)


def test_where_no_pair_can_be_created_doctor_says_nothing_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ns, "call_in_new", refuse)
    assert list(doctor._listeners()) == []


def test_measuring_an_event_waits_for_no_echo_where_the_kernel_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    without_echo(monkeypatch, event_cost_module)
    began = time.monotonic()
    assert 0 <= ns.call_in_new(event_cost) < 0.1
    assert time.monotonic() - began < 5  # an answer that does not come is awaited for 10 s


@pytest.mark.needs_kernel("5.18")
def test_a_backport_of_the_marks_of_addresses_is_known_by_the_loopback(
    home: ns.Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release="5.14.0-503.11.1.el9_5.x86_64"))
    ip("link", "set", "lo", "up")
    for is_there in (True, False):
        addresses.kernel_marks_owners.cache_clear()
        try:
            assert addresses.kernel_marks_owners() == is_there
        finally:
            addresses.kernel_marks_owners.cache_clear()
        if is_there:
            for address in ("127.0.0.1/8", "::1/128"):
                ip("address", "delete", address, "dev", "lo")
