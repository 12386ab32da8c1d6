"""The cache beside others who change everything at once: at every pause it is as the kernel is, and its events say so.

Each takes some three seconds. For longer: VETHLIB_SOAK=300 (seconds for each).
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.live.following import Copy, assert_right
from vethlib import End, Netns, Session, Veth, ns
from vethlib.ifindex import IfIndexCache

pytestmark = pytest.mark.slow

DURATION = float(os.environ.get("VETHLIB_SOAK", "2.5"))

LASTING = ["w0", "w1", "w2"]  # in each of them one of the others is at work
MORTAL = ["m0", "m1", "m2", "m3"]
LINKS = [f"l{number}" for number in range(6)]


def rounds() -> Iterator[None]:
    """For as long as it is to take."""
    deadline = time.monotonic() + DURATION
    while time.monotonic() < deadline:
        yield


def some_command(choose: random.Random) -> str:
    """Something to do to the links of a namespace; much of it fails, for the link is not there or the name is taken."""
    link, other = choose.sample(LINKS, 2)
    there = choose.choice(LASTING + MORTAL)
    return choose.choice(
        [
            f"link add {link} type veth peer name {other} netns {there}",
            f"link add {link} type veth peer name {other} netns {there}",
            f"link add {link} type veth peer name {other}",
            f"link del {link}",
            f"link set {link} netns {there}",
            f"link set {link} name {other}",
            f"link set {link} up",
            f"link set {link} down",
            f"link set {link} mtu {choose.randrange(1000, 1400)}",
            f"link set {link} up group {choose.randrange(3)}",
            f"link set {link} up alias {choose.choice(LINKS)}",
            f"link property add dev {link} altname {choose.choice('abc')}",
            f"link property del dev {link} altname {choose.choice('abc')}",
        ]
    )


def storm_command(choose: random.Random) -> str:
    """Something that is always done, and takes no time."""
    link = choose.choice(LINKS)
    return choose.choice([f"link set {link} up", f"link set {link} mtu {choose.randrange(1000, 1400)}"])


class Workers:
    """Processes that each do so many things in a namespace, and end."""

    def __init__(self, choose: random.Random, command: Callable[[random.Random], str], commands: int) -> None:
        self._running = [self._start(netns, [command(choose) for _ in range(commands)]) for netns in LASTING]

    def _start(self, netns: str, commands: list[str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["ip", "-n", netns, "-force", "-batch", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write("\n".join(commands) + "\n")
        process.stdin.close()
        return process

    def busy(self) -> bool:
        return any(process.poll() is None for process in self._running)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()
            process.wait()


def make_anew(cache: IfIndexCache, copy: Copy, name: str) -> None:
    ns.remove(name)
    Netns.create(name).close()
    cache.watch(name)
    copy.begin(name)


def watch_anew(cache: IfIndexCache, copy: Copy, name: str) -> None:
    copy.poll()
    cache.unwatch(name)
    del copy.links[name]
    cache.watch(name)
    copy.begin(name)


@pytest.mark.parametrize("receive_buffer", [32 << 20, 8192], ids=["roomy", "overflowing"])
def test_whatever_others_do_the_cache_is_right_at_every_pause(
    session: Session, make_netns: Callable[..., None], receive_buffer: int
) -> None:
    seed = random.randrange(1 << 32)
    choose = random.Random(seed)
    everywhere = LASTING + MORTAL
    make_netns(*everywhere)
    done = anew = 0
    with IfIndexCache(session, receive_buffer=receive_buffer) as cache:
        cache.watch_all(everywhere)
        copy = Copy(cache, everywhere)
        for _ in rounds():
            done += 1
            with Workers(choose, some_command, 40) as workers:
                while workers.busy():
                    what = choose.randrange(8)
                    if what == 0:
                        make_anew(cache, copy, choose.choice(MORTAL))
                        anew += 1
                    elif what == 1:
                        watch_anew(cache, copy, choose.choice(everywhere))
                    elif what == 2:
                        time.sleep(0.05)
                    else:
                        copy.poll(choose.choice([0, 0.02]))
            assert_right(cache, everywhere, copy.poll)
            copy.assert_same()
        print(f"seed {seed}: {done} rounds, {anew} namespaces made anew, {copy.events} events, {copy.resyncs} resyncs")
        assert copy.resyncs or receive_buffer > 8192


def test_a_storm_that_overflows_again_and_again_ends_with_all_known(
    session: Session, make_netns: Callable[..., None]
) -> None:
    seed = random.randrange(1 << 32)
    choose = random.Random(seed)
    make_netns(*LASTING)
    for netns in LASTING:
        session.create_many([Veth(End(a, netns), End(b, netns)) for a, b in zip(LINKS[::2], LINKS[1::2], strict=True)])
    done = 0
    with IfIndexCache(session, receive_buffer=16384) as cache:
        cache.watch_all(LASTING)
        copy = Copy(cache, LASTING)
        for _ in rounds():
            done += 1
            with Workers(choose, storm_command, 2000) as workers:
                while workers.busy():
                    copy.poll(0.02)
                    time.sleep(choose.choice([0, 0.01, 0.05]))
            assert_right(cache, LASTING, copy.poll)
            copy.assert_same()
        print(f"seed {seed}: {done} rounds of 6 000 changes, {copy.events} events, {copy.resyncs} resyncs")
        assert copy.resyncs
