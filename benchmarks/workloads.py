"""The workloads with their sizes and contestants, and the plan of jobs for a command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["FEW", "STANDARD", "WORKLOADS", "Job", "Workload", "plan"]

FEW = 4
"""Pairs that an agent of the workload upkeep has for comparison."""

EVERYBODY = ("limit", "vethlib", "vishvananda", "pyroute2", "ip")
ALL = (*EVERYBODY[:3], "vishvananda-given", *EVERYBODY[3:])  # with another version of it, if one is given
LIBRARIES = ALL[1:]
LEVERS = ("no-ipv6", "together")
PYTHON = ("vethlib", "pyroute2")
OURS = ("limit", "vethlib")
PULLED = tuple(f"{who}-{lever}" for lever in LEVERS for who in OURS)


@dataclass(frozen=True, slots=True)
class Workload:
    """A kind of work, on `n` items at a time."""

    name: str
    what: str
    n: int
    item: str
    peers: tuple[str, ...] = ALL
    destinations: bool = False  # whether it needs namespaces c0, … in addition to b0, …
    namespaces: int | None = None  # the number of namespaces, if it is not n
    furnished: bool = False  # whether the pairs h{i}–eth0 exist before, and stay for the next round
    deletes: bool = False  # whether deleting the links is part of the work
    adds_up: bool = False  # whether its phases are parts of one whole
    milliseconds: bool = False  # whether milliseconds suit it better than µs
    asks: str = ""  # the workload in the contestant's command line, if it differs
    ipv6_up_to: int | None = None  # above this number, only contestants without IPv6 at home run

    @property
    def request(self) -> str:
        """The workload in the contestant's command line."""
        return self.asks or self.name

    def peers_at(self, n: int) -> tuple[str, ...]:
        """Return the contestants at this size."""
        if self.ipv6_up_to is None or n <= self.ipv6_up_to:
            return self.peers
        return tuple(peer for peer in self.peers if peer.endswith("-no-ipv6"))


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(
            "lifecycle",
            "create pairs across namespaces with MAC, MTU and addresses, up; look every end up; delete all",
            500,
            "pair",
            peers=(*ALL[:2], *PULLED, *ALL[2:]),
            deletes=True,
            adds_up=True,
        ),
        Workload("create", "create pairs across namespaces with MAC and MTU, down", 500, "pair"),
        Workload(
            "routes",
            "create pairs across namespaces with MAC, MTU, addresses and two routes over each far end, up; delete all",
            1000,
            "pair",
            peers=OURS,
            deletes=True,
            adds_up=True,
        ),
        Workload("delete", "delete pairs", 500, "pair", deletes=True),
        Workload("move", "move one end of a pair to another namespace", 50, "link", peers=LIBRARIES, destinations=True),
        Workload("set", "change the MTU of a link", 500, "link"),
        Workload("lookup", "find a link by name, one by one", 500, "link"),
        Workload("dump", "read every link of a namespace", 4000, "link", namespaces=1),
        Workload("events", "follow what happens to links", 20000, "event", peers=PYTHON, namespaces=32),
        Workload(
            "import",
            "import the library into an interpreter that has socket and struct",
            10,
            "import",
            peers=PYTHON,
            namespaces=0,
            milliseconds=True,
        ),
        Workload(
            "growth",
            "lifecycle among ever more namespaces",
            16000,
            "pair",
            peers=(*OURS, *PULLED),
            deletes=True,
            adds_up=True,
            asks="lifecycle",
            ipv6_up_to=8000,  # a pair costs twice as much among twice as many: 16 000 would take minutes per run
        ),
        Workload("cache", "know every link of many namespaces", 8000, "namespace", peers=OURS, furnished=True),
        Workload(
            "listeners", "cause an event while a cache watches other namespaces", 2000, "namespace", peers=("vethlib",)
        ),
        Workload(
            "ring",
            "build a ring of namespaces with IPv4 and IPv6 on every wire, and take it down, until the kernel is done",
            100,
            "node",
            peers=("limit", "vethlib", "munet"),
            namespaces=0,
            adds_up=True,
        ),
        Workload(
            "routed-ring",
            "build a ring of namespaces; and once more with routes from every node to all others, and their names",
            100,
            "node",
            peers=("vethlib",),
            namespaces=0,
        ),
        Workload("agent", "start an agent on so many configured pairs", 4000, "pair", peers=("vethlib",)),
        Workload(
            "upkeep", "put, repair and rebuild one pair beside others, by an agent", 4000, "pair", peers=("vethlib",)
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Job:
    """One workload of one size."""

    workload: Workload
    n: int
    peers: tuple[str, ...]

    @property
    def namespaces(self) -> int:
        """The number of namespaces b0, … that it needs."""
        return self.n if self.workload.namespaces is None else self.workload.namespaces

    @property
    def title(self) -> str:
        """The title of the job."""
        return f"{self.workload.name}, {self.n} {self.workload.item}{'s' if self.n != 1 else ''}"


# (workload, size or None for its own, contestants or None for its own)
STANDARD: tuple[tuple[str, int | None, tuple[str, ...] | None], ...] = (
    ("lifecycle", None, None),
    ("lifecycle", 2000, (*OURS, *PULLED)),
    ("ring", 1000, OURS),
    *((name, None, None) for name in WORKLOADS if name != "lifecycle"),
)


def plan(names: Sequence[str], n: int | None = None, peers: Iterable[str] | None = None) -> list[Job]:
    """Return the jobs for these workloads, or the standard set; `n` and `peers` override their defaults."""
    chosen = [(name, None, None) for name in names] if names else STANDARD
    selected = None if peers is None else frozenset(peers)
    jobs: list[Job] = []
    for name, size, own in chosen:
        workload = WORKLOADS[name]
        for each in _sizes(workload, n or size or workload.n):
            peers_here = own or workload.peers_at(each)
            takes_part = tuple(peer for peer in peers_here if selected is None or peer in selected)
            job = Job(workload, each, takes_part)
            if takes_part and (workload, each) not in [(other.workload, other.n) for other in jobs]:
                jobs.append(job)
    return jobs


def _sizes(workload: Workload, n: int) -> list[int]:
    """Return the sizes of growth up to n: six steps, each twice the last; and of upkeep: few pairs, and n."""
    if workload.name == "upkeep":
        return sorted({min(FEW, n), n})
    return sorted({max(1, n >> shift) for shift in range(6)}) if workload.name == "growth" else [n]
