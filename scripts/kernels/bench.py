"""What creating in place and deleting as a group are worth on this kernel: ``python -m scripts.kernels.bench PAIRS``.

vethlib creates each end in its own namespace, and deletes pairs together. The usual way is to create both ends at home,
move one of them, and delete the pairs one by one: ``ip -batch`` does so here, in one process for all pairs. Links are
down and have one queue, because the kernel also waits for each queue that it adds for another CPU and does not use
(netif_set_real_num_tx_queues).

The difference is that the kernel makes the caller wait until every other CPU has passed through the scheduler
(synchronize_net, net/core/dev.c). So times are wall times, and waits are counted, too: getrusage(2) has them, and they
stay the same where a machine is busy or emulated, or has one CPU, for which a wait is short.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from vethlib import End, Netns, Session, Veth, ns

__all__ = ["IN_PLACE", "MOVED", "compared"]

ROUNDS = 3
LEAST = 2.0  # times fewer waits; a kernel has some of its own

_ONE_QUEUE = "numtxqueues 1 numrxqueues 1"

Cost: TypeAlias = tuple[float, int]
"""Seconds, and the number of waits."""

IN_PLACE = ("created in place", "deleted as a group")
MOVED = ("created and moved", "deleted one by one")


def main(count: int) -> int:
    """Measure both ways in turn, print the medians as JSON, and return 1 if there is no advantage."""
    ns.isolate()
    namespaces = [Netns.create(f"b{number}") for number in range(count)]
    costs: dict[str, list[Cost]] = {}
    with Session() as session:
        for _round in range(ROUNDS):
            for name, work in _works(session, count).items():
                costs.setdefault(name, []).append(_cost(work))
    for netns in namespaces:
        netns.close()
    figures = compared(count, costs)
    print(json.dumps(figures))
    if figures["waits_moved"] < LEAST * figures["waits_in_place"]:
        print(f"not {LEAST:g} times fewer waits", file=sys.stderr)
        return 1
    return 0


def compared(count: int, costs: Mapping[str, Sequence[Cost]]) -> dict[str, float]:
    """Return the median seconds of each part, the median waits of each way, and how many times faster the first is."""
    seconds = {name: statistics.median(cost[0] for cost in costs[name]) for name in (*IN_PLACE, *MOVED)}
    waits = {name: statistics.median(cost[1] for cost in costs[name]) for name in (*IN_PLACE, *MOVED)}
    ratio = sum(seconds[name] for name in MOVED) / sum(seconds[name] for name in IN_PLACE)
    return {
        "pairs": count,
        **{name: round(value, 4) for name, value in seconds.items()},
        "times_faster": round(ratio, 1),
        "waits_in_place": sum(waits[name] for name in IN_PLACE),
        "waits_moved": sum(waits[name] for name in MOVED),
    }


def _works(session: Session, count: int) -> dict[str, Callable[[], object]]:
    pairs = [
        Veth(End(f"h{number}", up=False, num_queues=1), End("eth0", f"b{number}", up=False, num_queues=1))
        for number in range(count)
    ]
    creations = [
        line
        for number in range(count)
        for line in (
            f"link add h{number} {_ONE_QUEUE} type veth peer name p{number} {_ONE_QUEUE}",
            f"link set p{number} netns b{number} name eth0",
        )
    ]
    return {
        IN_PLACE[0]: lambda: session.create_many(pairs, read=False),
        IN_PLACE[1]: lambda: session.delete_many([(f"h{number}", "") for number in range(count)]),
        MOVED[0]: lambda: _ip(creations),
        MOVED[1]: lambda: _ip(f"link del h{number}" for number in range(count)),
    }


def _ip(lines: Iterable[str]) -> None:
    subprocess.run(["ip", "-batch", "-"], input="".join(f"{line}\n" for line in lines), text=True, check=True)


def _cost(work: Callable[[], object]) -> Cost:
    start, waits = time.monotonic(), _waits()
    work()
    return time.monotonic() - start, _waits() - waits


def _waits() -> int:
    """Return how often this process and its former children have waited."""
    return sum(resource.getrusage(who).ru_nvcsw for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
