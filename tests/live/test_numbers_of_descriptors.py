"""The number of a descriptor that the caller has closed leads nowhere, even if the library reuses that number."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from tests.refusing import raises
from tests.witness import names
from vethlib import BatchError, End, IfIndexCache, Netns, NetnsNotFound, Session, Veth, VethError, ns
from vethlib.pytest_netns.leaks.census import Census, here
from vethlib.pytest_netns.leaks.found import Found

NUMBERS = range(3, 40)


def of_namespaces() -> dict[int, int]:
    """The inode of each open descriptor of a namespace."""
    found = {}
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if target.startswith("net:"):
            found[number] = os.fstat(number).st_ino
    return found


def closed_numbers() -> list[int]:
    return [number for number in NUMBERS if not os.path.lexists(f"/proc/self/fd/{number}")]


SPELLINGS: dict[str, Callable[[int], str]] = {
    "fd": lambda number: f"fd:{number}",
    "a path": lambda number: f"path:/proc/self/fd/{number}",
    "a path with the process id": lambda number: f"path:/proc/{os.getpid()}/fd/{number}",
    "the path of a thread": lambda number: f"path:/proc/thread-self/fd/{number}",
}


def last_error(call: Callable[[], object]) -> None:
    with pytest.raises(BatchError) as caught:
        call()
    raise caught.value.exceptions[-1]


def error_of(places: dict[str, object], ref: str) -> None:
    error = places[ref]
    assert isinstance(error, VethError), f"{ref} is {error}"
    raise error


def watch(session: Session, refs: list[str], *, reading: bool = False) -> None:
    with IfIndexCache(session) as cache:
        if reading:
            cache.watch_and_read(refs)
        else:
            cache.watch_all(refs)


CALLS: dict[str, Callable[[Session, str], object]] = {
    "create": lambda session, ref: session.create(Veth(End("a", "blue"), End("b", ref))),
    "create_many": lambda session, ref: session.create_many(
        [Veth(End("a"), End("b", "blue")), Veth(End("c"), End("d", ref))]
    ),
    "lookup_many": lambda session, ref: session.lookup_many([("lo", "blue"), ("lo", ref)]),
    "lookup_many without addresses": lambda session, ref: session.lookup_many(
        [("lo", "blue"), ("lo", ref)], addresses=False
    ),
    "stats_many": lambda session, ref: session.stats_many([("lo", "blue"), ("lo", ref)]),
    "set_many": lambda session, ref: last_error(lambda: session.set_many([("l", "blue"), ("l", ref)], mtu=1400)),
    "delete_many": lambda session, ref: last_error(
        lambda: session.delete_many([("missing", "blue"), ("l", ref)], missing_ok=False)
    ),
    "move": lambda session, ref: session.move("l", "blue", to=ref),
    "inspect": lambda session, ref: error_of(dict(session.inspect([("blue", "lo"), (ref, "lo")]).places), ref),
    "survey": lambda session, ref: error_of(dict(session.survey(["blue", ref]).places), ref),
    "stats_in": lambda session, ref: error_of(dict(session.stats_in(["blue", ref])), ref),
    "dependents": lambda session, ref: session.dependents([("blue", 1), (ref, 1)]),
    "watch_all": lambda session, ref: watch(session, ["blue", "red", ref]),
    "watch_and_read": lambda session, ref: watch(session, ["blue", "red", ref], reading=True),
}


@pytest.fixture
def tenant(session: Session, blue: str, red: str) -> str:
    session.create(Veth(End("l", blue), End("m", blue)))
    return blue


@pytest.mark.parametrize("spelling", ["fd", "a path"])
@pytest.mark.parametrize("call", CALLS)
def test_no_call_takes_what_it_has_opened_itself_for_it(
    session: Session, tenant: str, call: str, spelling: str
) -> None:
    for number in closed_numbers():
        ref = SPELLINGS[spelling](number)
        with raises(NetnsNotFound):
            CALLS[call](session, ref)
        assert names(tenant) == {"l", "m"}
        assert names() == set()


def no_reference(session: Session, ref: str) -> None:
    for call in (
        lambda: session.identity(ref),
        lambda: session.links(ref),
        lambda: Netns.open(ref),
        lambda: ns.open_fd(ref),
        lambda: ns.run(ref, ["true"]),
        lambda: ns.entered(ref),
    ):
        with raises(NetnsNotFound):
            call()


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_home_of_a_session_is_not_found_by_its_number(session: Session, spelling: str) -> None:
    before = of_namespaces()
    with Session():
        (number,) = of_namespaces().keys() - before.keys()
        no_reference(session, SPELLINGS[spelling](number))


def test_the_namespace_that_a_thread_returns_to_is_not_found_by_its_number(session: Session, blue: str) -> None:
    before = of_namespaces()
    with ns.entered(blue):
        (number,) = of_namespaces().keys() - before.keys()
        with pytest.raises(NetnsNotFound):
            session.identity(f"fd:{number}")


@pytest.fixture
def numbers_of_the_library(session: Session, blue: str) -> Iterator[list[int]]:
    """Numbers that the library has used, each with a failed call whose error is kept."""
    before = of_namespaces()
    with Session() as other:
        numbers = [*(of_namespaces().keys() - before.keys())]
        with pytest.raises(NetnsNotFound) as caught:
            other.lookup_many([("lo", blue), ("lo", "nowhere")])
        with pytest.raises(NetnsNotFound) as watched:
            watch(other, [blue, "nowhere"])
    numbers += [number for number in range(3, 60) if number not in of_namespaces()]
    yield numbers
    assert caught.value is not watched.value


def test_those_of_the_caller_are_found(session: Session, blue: str, numbers_of_the_library: list[int]) -> None:
    """Also under a number that the library has had before."""
    identity = session.identity(blue)
    reused = set()
    with Netns.open(blue) as netns:
        opened = [os.open("/run/netns/blue", os.O_RDONLY), *(os.dup(netns.fd) for _ in range(10))]
        try:
            for number in (netns.fd, *opened):
                reused |= {number} & {*numbers_of_the_library}
                for spell in SPELLINGS.values():
                    assert session.identity(spell(number)) == identity
        finally:
            for number in opened:
                os.close(number)
    assert reused


CREATE = """
import pickle, sys
from vethlib import NetnsNotFound, Session
with Session() as session:
    try:
        pair = session.create(pickle.load(sys.stdin.buffer))
    except NetnsNotFound:
        print("NetnsNotFound")
    else:
        print(session.identity(pair.b.netns)[1], session.identity("")[1])
        session.delete(pair.a)
"""


def created_elsewhere(pickled: bytes) -> str:
    """Create the pair in another process; return the inodes of the namespaces of its second end, and of home."""
    done = subprocess.run([sys.executable, "-c", CREATE], input=pickled, capture_output=True, check=True)
    return done.stdout.decode().strip()


def test_an_open_namespace_is_the_same_one_in_another_process(session: Session) -> None:
    home = session.identity("")[1]
    with Netns.anonymous() as first, Netns.anonymous() as second:
        for netns in (first, second):
            pickled = pickle.dumps(Veth(End("a"), End("b", netns)))
            assert created_elsewhere(pickled) == f"{netns.identity[1]} {home}"
    assert created_elsewhere(pickled) == "NetnsNotFound"


def test_a_copy_of_an_end_is_in_the_same_namespace(session: Session) -> None:
    with Netns.anonymous() as netns:
        copied = copy.deepcopy(End("b", netns))
        assert session.identity(copied.netns) == netns.identity
    with pytest.raises(VethError):
        session.identity(copied.netns)
    with pytest.raises(VethError):
        session.identity(copy.deepcopy(End("b", netns)).netns)


def test_what_keeps_a_leaked_namespace_is_found_by_its_number(session: Session, blue: str) -> None:
    """The leak watch gets the numbers of this process from the kernel, including those of a session left open."""
    before = of_namespaces()
    with ns.entered(blue), Session():
        number, *_ = [number for number, inode in of_namespaces().items() - before.items() if inode == here()[1]]
        with closing(Census(shares_links=True, shares_names=True)) as census:
            (held,) = census.holders([Found("descriptor", here(), number)])
            with held:
                assert ns.identity(held.fileno()) == here()


DAEMON = """
import os, sys
from vethlib import IfIndexCache, Netns, NetnsNotFound, Session, ns
spelling, forks = sys.argv[1], sys.argv[2] == "fork"
session = Session()  # of a module, which does not know that its descriptors are closed
cache = IfIndexCache(session)
cache.watch("red")
if forks and os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
os.closerange(3, 64)
opened = [os.open("/run/netns/blue", os.O_RDONLY) for _ in range(12)]
with Session() as other:
    for number in opened:
        ref = spelling.format(number)
        expected = os.stat("/run/netns/blue").st_ino
        assert other.identity(ref)[1] == other.identity("blue")[1] == expected, ref
        assert other.index("lo", ref) == 1
        with Netns.open(ref) as netns:
            assert netns.identity[1] == expected
        assert ns.run(ref, ["true"]).returncode == 0
os._exit(0)
"""


@pytest.mark.parametrize("spelling", ["fd:{}", "path:/proc/self/fd/{}"])
@pytest.mark.parametrize("process", ["fork", "itself"])
@pytest.mark.usefixtures("blue", "red")
def test_those_that_a_daemon_opens_after_closing_all_are_its_own(spelling: str, process: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DAEMON, spelling, process], stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
