"""What is run in a guest, and how its results are read."""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

__all__ = ["SUITES", "Outcome", "Suite", "divided", "failed_before", "job", "missing", "outcome", "selected"]

_TREE = Path(__file__).resolve().parents[2]
_PYTHON = shlex.quote(sys.executable)
# -v, so that the log ends with the name of a test that brings the kernel down. The wheel and the pages as HTML are the
# same on every kernel, and take many minutes.
_PYTEST = f"{_PYTHON} -m pytest -v -p no:cacheprovider -m 'not release' --junitxml={{out}}/"


_Form = TypeVar("_Form", list[Any], dict[str, Any])

_NO_TESTS = 5  # pytest's status where none of the named tests is of the suite


@dataclass(frozen=True, slots=True)
class Suite:
    """A command, in which {out} is where its results belong, and the seconds after which it is ended.

    If the command is pytest's, its arguments are followed by `tests`, the paths of directories or files.
    """

    command: str
    limit: int
    tests: tuple[str, ...] = ()


def _with_mark(mark: str) -> tuple[str, ...]:
    """Return the files of live tests that have a mark: collecting all the others takes a slow guest minutes."""
    files = sorted((_TREE / "tests/live").glob("test_*.py"))
    return tuple(str(file.relative_to(_TREE)) for file in files if f"pytest.mark.{mark}(" in file.read_text())


SUITES = {
    "doctor": Suite(f"{_PYTHON} -m vethlib doctor --json >{{out}}/doctor.json", 60),
    "demo": Suite(f"{_PYTHON} -m vethlib demo", 120),
    "scenario": Suite(f"{_PYTEST}scenario.xml", 600, ("tests/live/test_scenario.py",)),
    "unit": Suite(f"{_PYTEST}unit.xml", 3600, ("tests/unit",)),
    # These wait more than they compute, even on the one CPU of a guest; what measures times runs alone.
    "live": Suite(
        f"{_PYTEST}live.xml -m 'not release and not timing' -n 3 --dist loadfile --no-loadscope-reorder",
        4 * 3600,
        ("tests/live",),
    ),
    "timing": Suite(f"{_PYTEST}timing.xml -m 'timing and not release'", 1800, ("tests/live",)),
    "bench": Suite(f"{_PYTHON} -m scripts.kernels.bench 100 >{{out}}/bench.json", 300),
    "modules": Suite(f"{_PYTEST}modules.xml -m 'needs_module and not release'", 600, _with_mark("needs_module")),
}


@dataclass(slots=True)
class Outcome:
    """What came of a suite on one kernel: tests counted, reasons of skips, names of failures, and figures."""

    passed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    seconds: int = 0
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def as_json(self) -> dict[str, Any]:
        """The outcome as it is recorded."""
        return {
            "passed": self.passed,
            "skipped": dict(sorted(self.skipped.items())),
            "failed": self.failed,
            "seconds": self.seconds,
            **({"figures": self.figures} if self.figures else {}),
        }

    def __add__(self, other: Outcome) -> Outcome:
        """Return the outcome of both, which ran at the same time."""
        return Outcome(
            self.passed + other.passed,
            self.skipped + other.skipped,
            [*self.failed, *other.failed],
            max(self.seconds, other.seconds),
            {**self.figures, **other.figures},
        )


def selected(names: Iterable[str], tests: Iterable[str] | None = None) -> dict[str, list[str]]:
    """Return these suites, each with the tests that pytest is to run.

    With `tests`, which are files or names as pytest prints them, these are the suites that have some of them.
    """
    if tests is None:
        return {name: list(SUITES[name].tests) for name in names}
    found = {name: [test for test in tests if test.startswith(SUITES[name].tests)] for name in names}
    return {name: chosen for name, chosen in found.items() if chosen}


def divided(suites: Mapping[str, Sequence[str]], parts: int) -> list[dict[str, list[str]]]:
    """Divide the tests of each suite into `parts` of about the same size; the first has what is not pytest's.

    Tests of one file stay together, as their fixtures may be shared.
    """
    result: list[dict[str, list[str]]] = [{} for _part in range(parts)]
    for name, tests in suites.items():
        if not tests:
            result[0][name] = []
            continue
        sizes = [0] * parts
        for file, chosen in sorted(_by_file(tests).items(), key=lambda item: -_size(item[0])):
            least = sizes.index(min(sizes))
            sizes[least] += _size(file)
            result[least].setdefault(name, []).extend(chosen)
    return [part for part in result if part]


def _by_file(tests: Iterable[str]) -> dict[str, list[str]]:
    """Return the tests of each file: itself, or some of its tests by name; directories are taken apart."""
    files: dict[str, list[str]] = {}
    for test in tests:
        path = _TREE / test.partition("::")[0]
        if path.is_dir():
            found = [str(file.relative_to(_TREE)) for file in sorted(path.rglob("test_*.py"))]
            files |= {file: [file] for file in found}
        else:
            files.setdefault(test.partition("::")[0], []).append(test)
    return files


def _size(file: str) -> int:
    return (_TREE / file).stat().st_size


def job(suites: Mapping[str, Iterable[str]], arguments: str = "", patience: int = 1) -> str:
    """Return the script that runs what is `selected`, one after the other; pytest gets additional `arguments`.

    Each suite may take `patience` times its limit.
    """
    lines = ["#!/bin/sh"]
    for name, tests in suites.items():
        suite = SUITES[name]
        command = suite.command.format(out="/run/out")
        if suite.tests:
            command = " ".join([command, *map(shlex.quote, tests), arguments])
        lines += [
            "start=$(date +%s)",
            f"timeout --kill-after=30 {suite.limit * patience} sh -c {shlex.quote(command)} >/run/out/{name}.log 2>&1",
            f'echo "$? $(($(date +%s) - start))" >/run/out/{name}.ended',
        ]
    return "\n".join(lines) + "\n"


def outcome(name: str, out: Path) -> Outcome:
    """Read what a suite has left in `out`."""
    try:
        code, seconds = map(int, (out / f"{name}.ended").read_text().split())
    except (OSError, ValueError):
        return Outcome(failed=[f"{name} has not ended: {_last_line(out, name)}"])
    result = Outcome(seconds=seconds)
    if name == "doctor":
        _read_doctor(out / "doctor.json", result)
    elif SUITES[name].tests:
        _read_junit(out / f"{name}.xml", result)
    elif code == 0:
        result.passed = 1
    if name == "bench":
        result.figures = _json(out / "bench.json", dict)
    if code and not result.failed and not (code == _NO_TESTS and SUITES[name].tests):
        result.failed.append(f"{name} has ended with {code}: {_last_line(out, name)}")
    return result


def _read_doctor(path: Path, result: Outcome) -> None:
    for finding in _findings(path):
        if finding["ok"]:
            result.passed += 1
        elif finding["needed"]:
            result.failed.append(f"{finding['check']}: {finding['detail']}")
        else:
            result.skipped[f"{finding['check']}: {finding['detail']}"] += 1


def missing(out: Path) -> dict[str, str]:
    """Return the versions whose features doctor has missed, each with what that costs."""
    costs: dict[str, list[str]] = {}
    for finding in _findings(out / "doctor.json"):
        if not finding["ok"] and finding["check"].startswith("kernel "):
            costs.setdefault(finding["check"].removeprefix("kernel "), []).append(finding["detail"])
    return {version: "; ".join(details) for version, details in costs.items()}


def _findings(path: Path) -> list[Mapping[str, Any]]:
    return _json(path, list)


def _json(path: Path, form: type[_Form]) -> _Form:
    """Return what a file has as JSON, or something empty if it has nothing of this form."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return form()
    return value if isinstance(value, form) else form()


def _read_junit(path: Path, result: Outcome) -> None:
    failed = set()  # a test may fail, and so may its teardown
    for test, case in _cases(path):
        failures = [*case.iter("failure"), *case.iter("error")]
        skips = list(case.iter("skipped"))
        if failures:
            if test in failed:
                continue
            failed.add(test)
            result.failed.append(f"{test}: {failures[0].get('message', '')[:200]}")
        elif skips:
            result.skipped[skips[0].get("message", "")] += 1
        else:
            result.passed += 1


def failed_before(out: Path) -> list[str]:
    """Return the names, as pytest takes them, of the tests that failed in the run whose results are in `out`."""
    failed = (
        test
        for name in SUITES
        for file in sorted(out.rglob(f"{name}.xml"))
        for test, case in _cases(file)
        if case.find("failure") is not None or case.find("error") is not None
    )
    return list(dict.fromkeys(failed))


def _cases(path: Path) -> Iterator[tuple[str, ElementTree.Element]]:
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError):
        return
    for case in root.iter("testcase"):
        yield f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}", case


def _last_line(out: Path, name: str) -> str:
    for file in (f"{name}.log", "job.log", "console"):
        try:
            lines = (out / file).read_text(errors="replace").split("\n")
        except OSError:
            continue
        last = next((line for line in reversed(lines) if line.strip()), "")
        if last:
            return f"{last} ({out / file})"
    return f"see {out}"
