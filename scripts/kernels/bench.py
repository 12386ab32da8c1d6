"""What creating in place and deleting as a group are worth on this kernel: ``python -m scripts.kernels.bench PAIRS``.

vethlib creates pairs whose ends are in different namespaces where they belong, and deletes them together. Elsewhere it
is usual to create both ends at home, to move one of them, and to delete pairs one by one; ``ip -batch`` does that here,
one process for all pairs. The times are wall times, because most of the difference is waiting.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping

from vethlib import End, Netns, Session, Veth, ns

__all__ = ["IN_PLACE", "MOVED", "compared"]

ROUNDS = 3
LEAST = 3.0  # times; it is 5 to 50, depending on the kernel and on what else the machine does

IN_PLACE = ("created in place", "deleted as a group")
MOVED = ("created and moved", "deleted one by one")


def main(count: int) -> int:
    """Measure both ways in turn, print the medians as JSON, and return 1 if there is no advantage."""
    ns.isolate()
    namespaces = [Netns.create(f"b{number}") for number in range(count)]
    times: dict[str, list[float]] = {}
    with Session() as session:
        for _round in range(ROUNDS):
            for name, work in _works(session, count).items():
                times.setdefault(name, []).append(_seconds(work))
    for netns in namespaces:
        netns.close()
    result = compared(count, times)
    print(json.dumps(result))
    return 0 if result["times_faster"] >= LEAST else 1


def compared(count: int, times: Mapping[str, Iterable[float]]) -> dict[str, float]:
    """Return the medians of these times, in seconds, and how many times faster the first way is altogether."""
    medians = {name: statistics.median(times[name]) for name in (*IN_PLACE, *MOVED)}
    ratio = sum(medians[name] for name in MOVED) / sum(medians[name] for name in IN_PLACE)
    rounded = {name: round(median, 4) for name, median in medians.items()}
    return {"pairs": count, **rounded, "times_faster": round(ratio, 1)}


def _works(session: Session, count: int) -> dict[str, Callable[[], object]]:
    pairs = [Veth(End(f"h{number}"), End("eth0", f"b{number}")) for number in range(count)]
    creations = [
        line
        for number in range(count)
        for line in (
            f"link add h{number} type veth peer name p{number}",
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


def _seconds(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
