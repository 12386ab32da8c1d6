"""Objects that follow a host cannot be used in a forked child, and closing the child's copy ends nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests.live.children import in_a_child
from tests.live.configuring import configured, pair, pending, until
from tests.live.followers import nothing_more, told
from tests.refusing import raises
from tests.witness import ip, poll
from vethlib import Session, SessionClosed, ns
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.follow import Follower
from vethlib.monitor import Monitor

Sleeper = Callable[[], subprocess.Popen[bytes]]


def refused(*calls: Callable[[], object]) -> None:
    for call in calls:
        with raises(SessionClosed, forked=True):
            call()


@pytest.mark.parametrize("closes", [False, True])
def test_a_configurator_goes_on_without_its_child(session: Session, closes: bool) -> None:
    with Configurator(session, missing_netns="wait") as configurator:
        configurator.resync(pair("a", "b", bt="blue"))
        until(configurator, pending(configurator, "a", "b"))

        def child() -> None:
            refused(
                configurator.poll,
                configurator.fileno,
                configurator.resync,
                lambda: configurator.put(pair("c", "d")[0]),
                lambda: configurator.delete("a"),
            )
            if closes:
                configurator.close()

        ns.Netns.create("blue").close()  # its event waits for whoever reads it first
        assert in_a_child(child) == 0
        until(configurator, configured(configurator, "a", "b"))
        assert {link["ifname"] for link in ip("link", netns="blue")} == {"lo", "b"}


@pytest.mark.parametrize("closes", [False, True])
def test_a_follower_goes_on_without_its_child(sleeper: Sleeper, closes: bool) -> None:
    process = sleeper()
    ref = f"pid:{process.pid}"
    with Follower() as follower:
        follower.follow([ref, "blue"])
        nothing_more(follower)

        def child() -> None:
            refused(follower.changed, follower.fileno, follower.due, lambda: follower.unfollow([ref]))
            if closes:
                follower.close()

        process.kill()
        assert in_a_child(child) == 0
        assert told(follower) == {ref}
        ns.Netns.create("blue").close()
        assert told(follower) == {"blue"}


@pytest.mark.parametrize("closes", [False, True])
def test_a_monitor_goes_on_without_its_child(session: Session, blue: str, closes: bool) -> None:
    with Monitor(session) as monitor:

        def child() -> None:
            refused(monitor.poll, monitor.fileno, monitor.links)
            if closes:
                monitor.close()

        ip("link", "add", "name", "bridge", "type", "bridge", netns=blue)
        assert in_a_child(child) == 0
        assert poll(lambda: any(event.link is not None and event.link.name == "bridge" for event in monitor.poll(0)))
