"""``python -m benchmarks``: creating and deleting in bulk, vethlib beside a bare loop.

Each round makes its pairs between one home namespace and a namespace each; both sides take turns (A B A B …). It all
happens in namespaces of the benchmark's own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable

from vethlib import End, Netns, Session, Veth, ns

from . import bare


def main() -> int:
    """Run and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("-n", type=int, default=1000, help="pairs (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument("--queues", type=int, default=1, help="queues of every end, 0 for the kernel's default")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    args = parser.parse_args()
    ns.isolate()
    fds = bare.new_namespaces(args.n)
    try:
        figures = _run(fds, args)
    finally:
        for fd in fds:
            os.close(fd)
    _print(figures, args)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"machine": _machine(), "pairs": args.n, "queues": args.queues, "us_per_pair": figures}, file)
    return 0


def _run(fds: list[int], args: argparse.Namespace) -> dict[str, list[float]]:
    queues = args.queues or None
    names = [(f"h{number}", "") for number in range(len(fds))]
    spaces = [Netns.open(f"fd:{fd}") for fd in fds]

    def veths(*, up: bool) -> list[Veth]:
        return [
            Veth(
                End(f"h{i}", num_queues=queues, up=up, addresses=[f"10.{i >> 8}.{i & 255}.1/30"] if up else ()),
                End("eth0", space, num_queues=queues, up=up, addresses=[f"10.{i >> 8}.{i & 255}.2/30"] if up else ()),
            )
            for i, space in enumerate(spaces)
        ]

    figures: dict[str, list[float]] = {}

    def timed(what: str, work: Callable[[], object]) -> None:
        started = time.perf_counter()
        work()
        figures.setdefault(what, []).append((time.perf_counter() - started) / len(fds) * 1e6)

    with Session() as session:
        for number in range(args.repeat):
            _progress(number, args.repeat)
            creates, deletes = bare.create_messages(fds, queues=args.queues), bare.delete_messages(len(fds))
            timed("create, bare loop", lambda messages=creates: bare.exchange(messages))  # type: ignore[misc]
            timed("delete, bare loop", lambda messages=deletes: bare.exchange(messages))  # type: ignore[misc]
            timed("create, create_many", lambda: session.create_many(veths(up=False)))
            timed("delete, delete_many", lambda: session.delete_many(names, missing_ok=False))
            timed("create + up + address, create_many", lambda: session.create_many(veths(up=True)))
            timed("delete by the far ends, delete_many", lambda: session.delete_many([("eth0", s) for s in spaces]))
    _progress(args.repeat, args.repeat)
    for space in spaces:
        space.close()
    return figures


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\rround {done}/{total} " if done < total else "\r\033[K")
        sys.stderr.flush()


def _machine() -> str:
    return f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"


def _print(figures: dict[str, list[float]], args: argparse.Namespace) -> None:
    print(f"{_machine()}; {args.n} pairs, {args.queues or 'default'} queues, median of {args.repeat} rounds")
    base = {what: statistics.median(figures[f"{what}, bare loop"]) for what in ("create", "delete")}
    for what, values in figures.items():
        median = statistics.median(values)
        ratio = median / base["create" if what.startswith("create") else "delete"]
        print(f"  {what:<38} {median:7.0f} µs/pair  {min(values):6.0f}–{max(values):<6.0f} × {ratio:.2f}")


if __name__ == "__main__":
    sys.exit(main())
