"""Events that a socket receives, with a simulated kernel."""

from __future__ import annotations

import errno

import pytest

from tests.unit.simulated_kernel import OVERRUN, Kernel, Play, acking, reply
from vethlib._nl.const import NLMSG_DONE, RTM_NEWLINK, RTNLGRP_LINK


def test_events_are_messages_and_a_timeout_brings_none(play: Play) -> None:
    kernel = Kernel(acking)
    own = play(kernel, (RTNLGRP_LINK,))
    kernel.queue = [reply(RTM_NEWLINK, 0, b"one.") + reply(RTM_NEWLINK, 0, b"two.") + reply(NLMSG_DONE, 0, bytes(4))]
    assert own.events(1.5) == [(RTM_NEWLINK, b"one."), (RTM_NEWLINK, b"two.")]
    assert own.events(0) == []
    kernel.queue = [TimeoutError()]
    assert own.events(0.5) == []
    assert kernel.timeouts == [1.5, None, 0, None, 0.5, None]


def test_events_without_a_timeout_are_waited_for_as_long_as_it_takes(play: Play) -> None:
    kernel = Kernel(acking)
    own = play(kernel)
    kernel.queue = [BlockingIOError(), BlockingIOError(), reply(RTM_NEWLINK, 0, b"late")]
    assert own.events(None) == [(RTM_NEWLINK, b"late")]


def test_events_that_are_not_from_the_kernel_are_none(play: Play) -> None:
    kernel = Kernel(acking)
    own = play(kernel)
    kernel.port, kernel.queue = 77, [reply(RTM_NEWLINK, 0, b"link"), b"no message"]
    assert own.events(1) == own.events(1) == []


def test_lost_events_are_an_error(play: Play) -> None:
    kernel = Kernel(acking)
    own = play(kernel)
    kernel.queue = [OVERRUN]
    with pytest.raises(OSError) as caught:
        own.events(1)
    assert caught.value.errno == errno.ENOBUFS
    assert kernel.timeouts[-1] is None
