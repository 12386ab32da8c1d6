"""The record of what passed on which kernel, docs/reference/kernels.json, and the tables that are made from it."""

from __future__ import annotations

import json
import platform
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.kernels.bench import IN_PLACE, MOVED
from scripts.kernels.report import Run
from scripts.kernels.suites import SUITES

__all__ = ["RECORD", "details", "merged", "problems", "summary", "write"]

RECORD = Path(__file__).resolve().parents[2] / "docs/reference/kernels.json"
GUESTS = {"qemu": "QEMU", "uml": "User-Mode Linux"}

Record = Mapping[str, Any]


def write(run: Run, path: Path = RECORD, *, repeated: bool = False) -> None:
    """Add a run to the record; see `merged`."""
    before = json.loads(path.read_text()) if path.exists() else {"kernels": []}
    path.write_text(json.dumps(merged(before, run, repeated=repeated), indent=2, ensure_ascii=False) + "\n")


def merged(record: Record, run: Run, *, repeated: bool = False) -> dict[str, Any]:
    """Return the record with a run, in place of earlier ones of the same suites on the same kernel.

    Or, if only the failed tests were `repeated`, add their outcomes to those of the others. There is one entry per
    version and kind of guest, in the order of versions. Raises ValueError if a run is `repeated` and the record does
    not have as many failed tests as were run.
    """
    kernels = {(_version(entry["release"]), entry["guest"]): entry for entry in record["kernels"]}
    key = _version(run.release), run.guest
    before = kernels.get(key, {"suites": {}, "missing": {}})
    outcomes = {name: outcome.as_json for name, outcome in run.outcomes.items()}
    if repeated:
        outcomes = {name: _added(before["suites"].get(name), again) for name, again in outcomes.items()}
    if outcomes:
        kernels[key] = {
            "release": run.release,
            "guest": run.guest,
            "date": time.strftime("%Y-%m-%d"),
            "python": platform.python_version(),
            "missing": dict(run.missing) if "doctor" in outcomes else before["missing"],
            "suites": before["suites"] | outcomes,
        }
    return {"kernels": [kernels[key] for key in sorted(kernels)]}


def _added(before: Record | None, again: Record) -> dict[str, Any]:
    """Return the outcome of a suite whose failed tests, and no others, were run again."""
    run = again["passed"] + sum(again["skipped"].values()) + len(again["failed"])
    if before is None or len(before["failed"]) != run:
        raise ValueError("the record is not that of the run whose failed tests were run again")
    repeated = before.get("repeated", 0) + again["passed"]
    return {
        **before,
        "passed": before["passed"] + again["passed"],
        "skipped": dict(sorted((Counter(before["skipped"]) + Counter(again["skipped"])).items())),
        "failed": again["failed"],
        "seconds": before["seconds"] + again["seconds"],
        **({"repeated": repeated} if repeated else {}),
    }


def problems(record: Record) -> Iterator[str]:
    """Check the form of a record: what is not as `merged` writes it."""
    for entry in record["kernels"]:
        name = f"{entry.get('release')} ({entry.get('guest')})"
        keys = {"release", "guest", "date", "python", "missing", "suites"}
        if set(entry) != keys:
            yield f"{name} has {sorted(entry)}, not {sorted(keys)}"
            continue
        if entry["guest"] not in GUESTS:
            yield f"{name} is an unknown kind of guest"
        for suite, outcome in entry["suites"].items():
            if suite not in SUITES:
                yield f"{name} has an unknown suite: {suite}"
            if set(outcome) - {"figures", "repeated"} != {"passed", "skipped", "failed", "seconds"}:
                yield f"{name}, {suite} has {sorted(outcome)}"
    versions = [(_version(entry.get("release", "")), entry.get("guest")) for entry in record["kernels"]]
    if versions != sorted(set(versions)):
        yield "the kernels are not one each, in the order of their versions"


def summary(record: Record) -> str:
    """Return the table of README: each version, whether its tests passed, and what is missing there."""
    lines = ["| Linux | tests | lacks features that were added in Linux |", "|---|---|---|"]
    for entries in _by_version(record):
        missing = [feature for entry in entries for feature in entry["missing"]]
        features = ", ".join(feature.removeprefix("≥ ") for feature in dict.fromkeys(missing))
        lines.append(f"| {_name(entries)} | {_verdict(entries)} | {features or 'none'} |")
    return "\n".join(lines) + "\n"


def details(record: Record) -> str:
    """Return the tables of the page: the suites on each kernel, costs of missing features, and skipped tests."""
    suites = list(SUITES)
    lines = [
        f"| Linux | run in | {' | '.join(suites)} | minutes |",
        f"|---|---|{'---|' * len(suites)}---:|",
    ]
    for entry in record["kernels"]:
        cells = [_cell(entry["suites"].get(suite)) for suite in suites]
        minutes = sum(outcome["seconds"] for outcome in entry["suites"].values()) / 60
        lines.append(f"| {entry['release']} | {GUESTS[entry['guest']]} | {' | '.join(cells)} | {minutes:.0f} |")
    lines += ["", *_bench(record), "| before Linux | what that costs |", "|---|---|"]
    costs = {feature: cost for entry in record["kernels"] for feature, cost in entry["missing"].items()}
    for feature in sorted(costs, key=lambda feature: _version(feature.removeprefix("≥ "))):
        lines.append(f"| {feature.removeprefix('≥ ')} | {costs[feature]} |")
    lines += ["", "| tests that are skipped | on |", "|---|---|"]
    for reason, releases in _skips(record).items():
        lines.append(f"| {reason} | {', '.join(releases)} |")
    return "\n".join(lines) + "\n"


def _bench(record: Record) -> Iterator[str]:
    """Return the table of the benchmark, if it has run on a kernel."""
    figures = {
        f"{entry['release']} | {GUESTS[entry['guest']]}": outcome["figures"]
        for entry in record["kernels"]
        if (outcome := entry["suites"].get("bench", {})).get("figures")
    }
    if not figures:
        return
    times = (*IN_PLACE, *MOVED)
    yield f"| Linux | run in | pairs | {' | '.join(times)} | times faster | waits per pair |"
    yield f"|---|---|---:|{'---:|' * len(times)}---:|---:|"
    for kernel, values in figures.items():
        cells = " | ".join(f"{values[name]:.2f} s" for name in times)
        before, after = (values[name] / values["pairs"] for name in ("waits_moved", "waits_in_place"))
        yield f"| {kernel} | {values['pairs']} | {cells} | {values['times_faster']} | {before:.1f} → {after:.1f} |"
    yield ""


def _by_version(record: Record) -> Iterator[Sequence[Record]]:
    versions: dict[tuple[int, ...], list[Record]] = {}
    for entry in record["kernels"]:
        versions.setdefault(_version(entry["release"]), []).append(entry)
    yield from versions.values()


def _name(entries: Sequence[Record]) -> str:
    return ".".join(map(str, _version(entries[0]["release"])))


def _verdict(entries: Sequence[Record]) -> str:
    run = [name for name in SUITES if any(name in entry["suites"] for entry in entries)]
    failed = sum(len(outcome["failed"]) for entry in entries for outcome in entry["suites"].values())
    untested = [name for name in SUITES if name not in run]
    text = f"{failed} failed" if failed else "all passed" if not untested else f"{', '.join(run)} passed"
    return f"{text}; {', '.join(untested)} untested" if untested else text


def _cell(outcome: Record | None) -> str:
    if outcome is None:
        return "untested"
    skipped, failed = sum(outcome["skipped"].values()), len(outcome["failed"])
    parts = [f"{outcome['passed']} passed"]
    parts += [f"{outcome['repeated']} of them in a second run"] if "repeated" in outcome else []
    parts += [f"{skipped} skipped"] if skipped else []
    parts += [f"**{failed} failed**"] if failed else []
    return ", ".join(parts)


def _skips(record: Record) -> dict[str, list[str]]:
    skips: dict[str, list[str]] = {}
    for entry in record["kernels"]:
        for suite, outcome in entry["suites"].items():
            if suite == "doctor":
                continue
            for reason, count in outcome["skipped"].items():
                skips.setdefault(reason, []).append(f"{_name([entry])} ({count} of {suite})")
    return dict(sorted(skips.items()))


def _version(release: str) -> tuple[int, ...]:
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in release.split(".")[:2])
