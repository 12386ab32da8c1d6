"""Measure the cost of a fresh ``veth`` for a test: ``python -m benchmarks.pytest_veth``, with the plugin as users have
it.

The same tests run in turn with an empty fixture and with ``veth``, each without and with the leak watch. Each run is a
separate pytest with this module as a plugin, which records the duration of every phase of every test, and the
namespaces, links, threads and descriptors after the first test and after the last one.

The kernel checks for leaks, too: the runs have a user namespace in which up to `LIMIT` network namespaces can exist at
a time (user.max_net_namespaces). If each test leaked one, a test would soon get none.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from .machine import Machine, busy

LIMIT = 200
PHASES = ("setup", "call", "teardown")
VARIANTS = {
    "an empty fixture": ("nothing", "off"),
    "an empty fixture, watched": ("nothing", "fail"),
    "veth, not watched": ("veth", "off"),
    "veth, watched": ("veth", "fail"),
}

_OUT = "VETHLIB_BENCHMARK_OUT"
_PROJECT = """
import pytest

@pytest.fixture
def nothing():
    return None

# First, so that in each variant the plugin is in use, and what a session keeps is there from the start.
def test_first(veth):
    pass

@pytest.mark.netns
@pytest.mark.parametrize("number", range({count}))
def test_one_of_many({fixture}, number):
    pass
"""


class Record:
    """The recordings of the plugin."""

    def __init__(self) -> None:
        self.phases: dict[str, list[float]] = {phase: [] for phase in PHASES}
        self.before: dict[str, list[str]] = {}


_record = Record()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when in PHASES:
        _record.phases[report.when].append(report.duration)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    result = yield  # not before the first test has ended
    if not _record.before:
        _record.before = _there_is()
    return result


def pytest_sessionfinish() -> None:
    after = _there_is()
    left = {kind: len(set(there) - set(_record.before.get(kind, ()))) for kind, there in after.items()}
    Path(os.environ[_OUT]).write_text(json.dumps({"phases": _record.phases, "left": left}), encoding="utf-8")


def _there_is() -> dict[str, list[str]]:
    """Return everything that is held; of processes, those that share this user namespace."""
    seen = {
        "namespaces": [_link(f"/proc/{pid}/ns/net") for pid in os.listdir("/proc") if pid.isdecimal()],
        "threads": os.listdir("/proc/self/task"),
        "descriptors": [f"{fd} {link}" for fd in os.listdir("/proc/self/fd") if (link := _link(f"/proc/self/fd/{fd}"))],
        "links": [link["ifname"] for link in json.loads(subprocess.check_output(["ip", "-j", "link"]))],
    }
    for descriptor in seen["descriptors"]:
        seen["namespaces"] += re.findall(r"net:\[\d+\]", descriptor)
    return seen


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print the results; return 1 if a test failed or something was left."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pytest_veth", description=__doc__.partition("\n\n")[0])
    parser.add_argument("-n", type=int, default=1000, metavar="N", help="number of tests (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, metavar="R", help="rounds (default: %(default)s)")
    args = parser.parse_args(argv)
    if warning := busy():
        print(f"warning: {warning}", file=sys.stderr)
    runs: dict[str, list[dict[str, Any]]] = {variant: [] for variant in VARIANTS}
    with tempfile.TemporaryDirectory() as directory:
        for _ in range(args.repeat):
            for variant, (fixture, leaks) in VARIANTS.items():
                runs[variant].append(_run(Path(directory), _PROJECT.format(count=args.n, fixture=fixture), leaks))
    print(Machine.here())
    print(_table(runs, args.n))
    left = {
        f"{count} {kind}" for those in runs.values() for run in those for kind, count in run["left"].items() if count
    }
    print(f"left after the last test: {', '.join(sorted(left)) or 'no namespace, no link, no thread, no descriptor'}")
    return 1 if left else 0


def _run(directory: Path, project: str, leaks: str) -> dict[str, Any]:
    (directory / "test_many.py").write_text(project, encoding="utf-8")
    out = directory / "out.json"
    out.unlink(missing_ok=True)
    pytest_ = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        __spec__.name,
        f"--netns-leaks={leaks}",
        f"--rootdir={directory}",
    ]
    others = [
        option
        for plugin in ("randomly", "hypothesispytest", "asyncio", "cacheprovider")
        for option in ("-p", f"no:{plugin}")
    ]
    limited = f'echo {LIMIT} >/proc/sys/user/max_net_namespaces && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", limited, "sh", *pytest_, *others, str(directory)]
    environment = os.environ | {_OUT: str(out), "PYTHONPATH": os.getcwd()}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stdout[-2000:]}{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return result


def _table(runs: dict[str, list[dict[str, Any]]], count: int) -> str:
    lines = [f"{f'µs a test, median of {count}':<30}{''.join(f'{phase:>10}' for phase in PHASES)}{'mean, all':>12}"]
    figures = {}
    for variant, those in runs.items():
        medians = [_median([_median(run["phases"][phase]) for run in those]) for phase in PHASES]
        mean = _median([sum(statistics.fmean(run["phases"][phase]) for phase in PHASES) for run in those])
        figures[variant] = [*medians, mean]
    for variant, row in figures.items():
        lines.append(_line(variant, row))
    empty, empty_watched, plain, watched = figures.values()
    lines.append(_line("so a veth costs", _difference(plain, empty)))
    lines.append(_line("the leak watch, of nothing", _difference(empty_watched, empty)))
    lines.append(_line("the leak watch, of a veth", _difference(watched, plain)))
    return "\n".join(lines)


def _difference(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [mine - yours for mine, yours in zip(one, other, strict=True)]


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _line(name: str, row: Sequence[float]) -> str:
    *phases, mean = (1e6 * one for one in row)
    return f"{name:<30}{''.join(f'{one:>10.0f}' for one in phases)}{mean:>12.0f}"


if __name__ == "__main__":
    sys.exit(main())
