"""``python -m scripts.kernels``: run vethlib on other kernels, and print what passed on each."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from scripts.kernels import record
from scripts.kernels.guests import TREE, Guest, Qemu, UserMode, xstate
from scripts.kernels.images import RELEASES, busybox, uml_image
from scripts.kernels.packages import Apt, Unavailable
from scripts.kernels.report import Run, shown, together
from scripts.kernels.stock import emulator, stock_image
from scripts.kernels.suites import SUITES, divided, failed_before, job, missing, outcome, selected

BUILD = TREE / ".build/kernels"
_HOURS = 6 * 3600.0


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 if everything passed, 1 if something failed, 2 if a kernel could not be had or did not end."""
    args = _arguments(argv)
    deadline = time.monotonic() + (args.within or _HOURS)
    runs: list[Run] = []
    problems: list[str] = []
    try:
        guests = _guests(args, deadline, problems)
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        with ThreadPoolExecutor(args.parallel) as pool:
            try:
                shards = {shard: pool.submit(shard.run, args, deadline, stop) for shard in _shards(guests, args)}
                for run in _whole(shards):
                    runs.append(run)
                    print(shown(run), flush=True)
                    if args.record and run.ended:
                        problems += _recorded(run, args)
            finally:
                stop.set()
    except Unavailable as error:
        problems.append(f"not run: {error}")
    failed = [run for run in runs if run.failed]
    problems += [f"Linux {run.release} has not come to its end: {run.out}/console" for run in runs if not run.ended]
    for problem in problems:
        print(f"kernels: {problem}", file=sys.stderr)
    if failed:
        return 1
    return 2 if problems and not args.within else 0


def _guests(args: argparse.Namespace, deadline: float, problems: list[str]) -> list[Guest]:
    """Return a guest for each version that can be had."""
    if os.geteuid() != 0:
        raise Unavailable("this needs root, so that a guest can see the files of this machine but not change them")
    if platform.machine() != "x86_64":
        raise Unavailable("Debian has these kernels for x86-64 only")
    if args.fetch:
        for name in ("uml", "libc", "busybox", "stock", "qemu"):
            shutil.rmtree(BUILD / name, ignore_errors=True)
    apt = cache(lambda suite: Apt(BUILD / "apt" / suite, suite, deadline))
    guests: list[Guest] = []
    for version in args.versions or RELEASES:
        suite = RELEASES[version]
        try:
            if args.qemu:
                emulated = emulator(BUILD, apt)
                guests.append(Qemu(stock_image(BUILD, suite, apt), busybox(BUILD, suite, apt), emulated))
            else:
                guests.append(UserMode(uml_image(BUILD, suite, apt), busybox(BUILD, suite, apt), xstate(BUILD)))
        except Unavailable as error:
            problems.append(f"not run: Linux {version}: {error}")
    return guests


def _recorded(run: Run, args: argparse.Namespace) -> list[str]:
    """Add a run to the record, before the next one ends; return why that cannot be done."""
    try:
        record.write(run, repeated=args.failed)
    except ValueError as error:
        return [f"not recorded: Linux {run.release}: {error}"]
    return []


@dataclass(frozen=True, eq=False)
class _Shard:
    """What one of the guests of a kernel runs."""

    guest: Guest
    suites: Mapping[str, Sequence[str]]
    out: Path

    def run(self, args: argparse.Namespace, deadline: float, stop: threading.Event) -> Run:
        guest, out = self.guest, self.out
        started = time.monotonic()
        ended = guest.run(job(self.suites, args.pytest, guest.patience), out, max(1.0, deadline - started), stop)
        outcomes = {name: outcome(name, out) for name in self.suites if ended or (out / f"{name}.ended").exists()}
        return Run(guest.name, guest.image.release, outcomes, missing(out), time.monotonic() - started, ended, out)


def _shards(guests: Iterable[Guest], args: argparse.Namespace) -> Iterator[_Shard]:
    for guest in guests:
        out = BUILD / "out" / f"{guest.name}-{guest.image.version}"
        suites = selected(args.suites or guest.suites, failed_before(out) if args.failed else args.tests)
        shutil.rmtree(out, ignore_errors=True)
        if args.shards == 1:
            yield _Shard(guest, suites, out)
        else:
            for number, part in enumerate(divided(suites, args.shards), start=1):
                yield _Shard(guest, part, out / f"{number}")


def _whole(shards: Mapping[_Shard, Future[Run]]) -> Iterator[Run]:
    """Yield what each kernel has done once all of its guests have ended."""
    left = Counter(shard.guest for shard in shards)
    by_future = {future: shard for shard, future in shards.items()}
    for ended in as_completed(by_future):
        guest = by_future[ended].guest
        left[guest] -= 1
        if not left[guest]:
            parts = [future.result() for shard, future in shards.items() if shard.guest is guest]
            yield parts[0] if len(parts) == 1 else together(parts)


def _some_of(known: Collection[str]) -> Callable[[str], list[str]]:
    """Return what reads words that are among the known ones."""

    def read(text: str) -> list[str]:
        for word in text.split():
            if word not in known:
                raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(known)}")
        return text.split()

    return read


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return count


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.kernels", description=__doc__.partition(": ")[2])
    add = parser.add_argument
    add("--versions", type=_some_of(RELEASES), default="", metavar="'5.10 6.1'", help=f"some of {', '.join(RELEASES)}")
    add("--qemu", action="store_true", help="stock kernels under QEMU, instead of User-Mode Linux")
    add("--suites", type=_some_of(SUITES), default="", metavar="'demo unit'", help=f"some of {', '.join(SUITES)}")
    add("--tests", type=str.split, metavar="'FILE ...'", help="run only these, of the suites that have them")
    add("--failed", action="store_true", help="run only what failed the last time, on each kernel")
    add("--pytest", default="", metavar="ARGUMENTS", help="more arguments for pytest, such as '-k move'")
    add("--parallel", type=_count, default=1, metavar="N", help="the number of guests that run at the same time")
    add("--shards", type=_count, default=1, metavar="N", help="divide the tests of each kernel among N guests")
    add("--record", action="store_true", help="keep the results in docs/reference/kernels.json")
    add("--fetch", action="store_true", help="fetch even the kernels that are here already")
    add("--within", type=float, metavar="SECONDS", help="stop then; only a test that fails is a failure")
    args = parser.parse_args(argv)
    if args.record and (args.tests or args.pytest):
        parser.error("--record is for whole suites: not with --tests or --pytest")
    return args


if __name__ == "__main__":
    sys.exit(main())
