"""Dependants on foreign links are attached and detached as other programs create, change and delete these."""

from __future__ import annotations

import errno
import os

import pytest

from tests.live.configuring import foreign, pair, put, reach_in, settle, until, without_ipv6
from tests.live.descriptors import descriptors_left
from tests.live.tap import Refusing, Tap
from tests.witness import ip, names, poll, seen
from vethlib import Link, LinkNotFound, ns
from vethlib.agent.reconcile.configurator import Configurator


@pytest.mark.parametrize("netns", ["", "blue"])
def test_a_link_of_others_has_it_attached_as_that_comes_and_goes(
    configurator: Configurator, blue: str, netns: str
) -> None:
    tap = Tap("o1", netns)
    configurator.attach(tap)
    settle(configurator)
    for _ in range(2):
        tap.calls.clear()
        foreign("o1", netns, peer="o2")
        settle(configurator)
        assert tap.calls == []  # it is down
        ip("link", "set", "dev", "o1", "up", netns=netns)
        settle(configurator)
        ip("link", "del", "dev", "o2", netns=netns)
        settle(configurator)
        assert tap.kinds == ["attached", "detached"]
        assert (tap.calls[0][2], tap.calls[1][2]) == ("o1 up", "gone")


def test_a_link_of_others_that_went_while_nobody_looked_there_has_nobody_attached(
    configurator: Configurator, blue: str
) -> None:
    """blue is followed for the pair; then for nobody; then for the dependant."""
    foreign("o1", "blue", peer="o2")
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    ip("link", "set", "dev", "o1", "up", netns="blue")
    settle(configurator)
    configurator.delete("a")
    configurator.delete("b")
    settle(configurator)
    ip("link", "del", "dev", "o1", netns="blue")
    settle(configurator)
    tap = Tap("o1", "blue")
    attachment = configurator.attach(tap)
    settle(configurator)
    assert (tap.calls, attachment.link) == ([], None)


def test_a_link_of_others_keeps_it_attached_when_the_last_interface_there_goes(
    configurator: Configurator, blue: str
) -> None:
    foreign("o1", "blue", peer="o2")
    ip("link", "set", "dev", "o1", "up", netns="blue")
    tap = Tap("o1", "blue")
    configurator.attach(tap)
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    configurator.delete("a")
    configurator.delete("b")
    settle(configurator)
    assert tap.kinds == ["attached"]
    ip("link", "del", "dev", "o1", netns="blue")
    settle(configurator)
    assert tap.kinds == ["attached", "detached"]


def test_a_namespace_made_anew_before_the_end_of_the_old_one_was_heard_of_has_it_attached(
    configurator: Configurator, blue: str
) -> None:
    reach_in("blue")
    tap = Tap("o1", "blue")
    attachment = configurator.attach(tap)
    ns.remove("blue")
    until(configurator, lambda: attachment.link is None)
    assert poll(lambda: names() == set()), "the old namespace has ended"
    ns.Netns.create("blue").close()
    reach_in("blue")
    until(configurator, lambda: attachment.link is not None)
    assert tap.calls[-1] == ("attached", seen("o1", "blue")["ifindex"], "o1 up")
    ip("link", "del", "dev", "inside")
    settle(configurator)
    assert attachment.link is None


def test_what_was_queued_by_the_old_namespace_does_not_detach_it_in_the_new_one(
    configurator: Configurator, blue: str
) -> None:
    reach_in("blue")
    tap = Tap("o1", "blue")
    configurator.attach(tap)
    ip("link", "set", "dev", "o1", "mtu", "1400", netns="blue")
    ns.remove("blue")
    assert poll(lambda: names() == set()), "the old namespace has ended"
    ns.Netns.create("blue").close()
    reach_in("blue")
    until(configurator, lambda: len(tap.calls) > 2)
    settle(configurator)
    assert tap.kinds == ["attached", "detached", "attached"]
    assert tap.calls[-1] == ("attached", seen("o1", "blue")["ifindex"], "o1 up")


# --- attached later


def test_one_whose_link_was_not_there_for_a_moment_is_asked_again_later(configurator: Configurator, blue: str) -> None:
    class Late(Refusing):
        def attached(self, link: Link) -> None:
            if not self.willing:
                self.willing = True
                raise LinkNotFound("it is away", errno=errno.ENODEV)
            super().attached(link)

    without_ipv6("blue")
    reach_in("blue")
    late = Late("o1", "blue")
    settle(configurator)
    assert poll(lambda: seen("o1", "blue")["operstate"] == "UP")
    settle(configurator)
    configurator.attach(late)
    until(configurator, lambda: late.kinds == ["attached"])


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM])
def test_one_for_which_there_was_no_descriptor_or_no_memory_is_asked_again_later(
    configurator: Configurator, blue: str, number: int
) -> None:
    class Starved(Refusing):
        def attached(self, link: Link) -> None:
            if self.asked < 2:
                self.asked += 1
                raise OSError(number, os.strerror(number))
            self.willing = True
            super().attached(link)

    without_ipv6("blue")
    reach_in("blue")
    starved = Starved("o1", "blue")
    configurator.attach(starved)
    until(configurator, lambda: starved.kinds == ["attached"])
    assert starved.asked == 3


@pytest.mark.parametrize("left", [0, 1, 2, 3])
def test_where_its_namespace_could_not_be_watched_for_want_of_descriptors_it_is_attached_later(
    configurator: Configurator, blue: str, left: int
) -> None:
    reach_in("blue")
    tap = Tap("o1", "blue")
    with descriptors_left(left):
        configurator.attach(tap)
        configurator.poll(0)
    until(configurator, lambda: tap.kinds == ["attached"], 20.0)
