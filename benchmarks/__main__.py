"""``python -m benchmarks``: measure vethlib in comparison with similar programs and with the cost of the kernel."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vethlib import VethError, ns
from vethlib._files import write_whole

from . import report
from .arena import Arena
from .chart import chart
from .contestants import CONTESTANTS, Unavailable
from .interruption import Interrupted, raise_on_signals
from .machine import Conditions, Machine, busy
from .progress import Progress
from .record import NotResumable, record, results_of
from .results import Result
from .run import compile_all, run_job
from .workloads import WORKLOADS, Job, plan


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print a report; return 1 if a contestant failed, 2 if nothing could be run, 130 or 143 if interrupted."""
    args = _arguments(argv)
    if warning := busy():
        print(f"warning: {warning}", file=sys.stderr)
    before = os.getloadavg()[0]
    results: list[Result] = []
    missing: dict[str, str] = {}
    interrupted = 0
    raise_on_signals()
    try:
        jobs = plan(args.workloads, args.n, args.peers)
        commands = _commands(jobs, missing)
        finished = _finished(args)
        if args.json and not args.resume:
            _part(args.json).unlink(missing_ok=True)
        compile_all()
        ns.isolate()
        for _ in _run(jobs, commands, args, results, finished):
            _keep(results, _conditions(args, before, results, missing), args)
    except (VethError, NotResumable) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except Interrupted as signalled:
        interrupted = signalled.number
        is_kept = args.json is not None and _part(args.json).exists()
        kept = f"; the finished jobs are in {_part(args.json)}, for --resume" if is_kept else ""
        print(f"interrupted: the results so far are shown{kept}", file=sys.stderr)
    conditions = _conditions(args, before, results, missing)
    _tell(results, conditions)
    if interrupted:
        return 128 + interrupted
    _write(results, conditions, args)
    return 1 if any(result.failures for result in results) else 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure vethlib in comparison with similar programs and with the cost of the kernel.",
        epilog=f"workloads: {', '.join(WORKLOADS)}; peers: {', '.join(CONTESTANTS)}",
    )
    parser.add_argument("workloads", nargs="*", type=_workload, metavar="WORKLOAD", help="default: the standard set")
    parser.add_argument("-n", type=_positive, metavar="N", help="number of pairs, links, … (growth: the largest)")
    parser.add_argument("--peers", type=_peers, metavar="A,B,…", help="contestants (default: all that are available)")
    parser.add_argument("--repeat", type=_positive, default=5, metavar="R", help="rounds (default: %(default)s)")
    parser.add_argument(
        "--queues", type=_queues, default=1, metavar="Q", help="per end, 0: the kernel's default (default: %(default)s)"
    )
    parser.add_argument(
        "--wait", type=_seconds, default=30, metavar="SECONDS", help="for an idle machine, a run (default: %(default)s)"
    )
    parser.add_argument("--json", type=_new_file, metavar="FILE", help="write all results to this file")
    parser.add_argument("--resume", action="store_true", help="do not repeat jobs that an interrupted run has finished")
    parser.add_argument("--svg", type=_new_file, metavar="FILE", help="draw a chart to this file")
    args = parser.parse_args(argv)
    if args.resume and not args.json:
        parser.error("--resume needs the --json FILE of the interrupted run")
    if not plan(args.workloads, args.n, args.peers):
        parser.error(f"none of {', '.join(args.peers)} does {', '.join(args.workloads)}")
    return args


def _workload(text: str) -> str:
    if text not in WORKLOADS:
        raise argparse.ArgumentTypeError(f"unknown workload {text!r}; the workloads are {', '.join(WORKLOADS)}")
    return text


def _peers(text: str) -> list[str]:
    peers = text.split(",")
    for peer in peers:
        if peer not in CONTESTANTS:
            raise argparse.ArgumentTypeError(f"unknown peer {peer!r}; the peers are {', '.join(CONTESTANTS)}")
    return peers


def _positive(text: str) -> int:
    return _number(text, 1, 65536)  # the number of a pair has two bytes in its MACs and addresses


def _queues(text: str) -> int:
    return _number(text, 0, 4096)  # the maximum of rtnl_create_link (net/core/rtnetlink.c)


def _seconds(text: str) -> int:
    return _number(text, 0, 3600)


def _number(text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from {least} to {most}")
    return int(text)


def _new_file(text: str) -> Path:
    path = Path(text).absolute()
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written")
    return path


def _commands(jobs: Sequence[Job], missing: dict[str, str]) -> dict[str, list[str]]:
    """Return the commands of the available contestants; `missing` gets the reasons for the others."""
    needed = {peer for job in jobs for peer in job.peers}
    commands = {}
    for name, contestant in CONTESTANTS.items():
        if name in needed:
            try:
                commands[name] = contestant.command()
            except Unavailable as error:
                missing[name] = str(error)
    return commands


def _finished(args: argparse.Namespace) -> dict[Job, Result]:
    """Return what an interrupted run has finished. Raises NotResumable if it had other conditions."""
    if not args.resume:
        return {}
    try:
        kept = _part(args.json).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotResumable(f"there is no interrupted run to resume: no {_part(args.json)}") from None
    return {result.job: result for result in results_of(kept, Machine.here(), args.queues, args.repeat)}


def _run(
    jobs: Sequence[Job],
    commands: dict[str, list[str]],
    args: argparse.Namespace,
    results: list[Result],
    finished: Mapping[Job, Result],
) -> Iterator[None]:
    """Run the jobs but the finished ones; yield after each of them. `results` is updated continuously."""
    progress = Progress([job for job in jobs if job not in finished], list(commands), args.repeat)
    try:
        with Arena() as arena:
            for job in jobs:
                if job in finished:
                    results.append(finished[job])
                    continue
                results.append(Result(job))
                settings = {"repeat": args.repeat, "queues": args.queues, "wait": args.wait}
                run_job(results[-1], arena, commands, **settings, watcher=progress)
                yield
    finally:
        progress.clear()


def _conditions(
    args: argparse.Namespace, before: float, results: Sequence[Result], missing: dict[str, str]
) -> Conditions:
    load, versions = (before, os.getloadavg()[0]), _versions(results)
    were_busy = [run.busy for result in results for run in result.runs]
    runs, idle = len(were_busy), were_busy.count(False)
    return Conditions(Machine.here(), args.queues, args.repeat, load, runs, idle, versions, missing)


def _versions(results: Sequence[Result]) -> dict[str, str]:
    return {run.contestant: run.version for result in results for run in result.runs if run.version}


def _tell(results: Sequence[Result], conditions: Conditions) -> None:
    tables = [report.table(result) for result in results]
    print(report.header(conditions))
    for table in filter(None, [*tables, report.growth_table(results), report.targets_table(results)]):
        print(f"\n{table}")


def _keep(results: Sequence[Result], conditions: Conditions, args: argparse.Namespace) -> None:
    """Write what is finished beside the file with the results, for --resume."""
    if args.json:
        _write_record(_part(args.json), results, conditions)


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _write_record(path: Path, results: Sequence[Result], conditions: Conditions) -> None:
    text = json.dumps(record(results, conditions), ensure_ascii=False, indent=1)
    write_whole(str(path), f"{text}\n".encode())


def _write(results: Sequence[Result], conditions: Conditions, args: argparse.Namespace) -> None:
    if args.json:
        _write_record(args.json, results, conditions)
        _part(args.json).unlink(missing_ok=True)
    if args.svg:
        args.svg.write_text(chart(results, conditions), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
