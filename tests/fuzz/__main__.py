"""``python -m tests.fuzz``: try cases on every target for a while, and report what was found."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from random import Random, SystemRandom

from .engine import Campaign, Finding, Target, file_name, judge
from .targets import TARGETS

_FOUND = Path(__file__).parents[2] / ".build" / "fuzz"
_TURNS = 3  # of each target, so that one that is interrupted has tried them all


def main() -> int:
    """Fuzz, or replay; returns how many targets have findings, at most 1."""
    arguments = _arguments()
    chosen = [target for target in TARGETS if not arguments.target or target.name in arguments.target]
    if arguments.replay:
        return _replay(arguments.replay)
    seed = arguments.seed if arguments.seed is not None else SystemRandom().randrange(1 << 32)
    print(f"{len(chosen)} targets for {arguments.seconds:g} s, seed {seed}", flush=True)
    campaigns = [Campaign(target, Random(f"{seed} {target.name}")) for target in chosen]
    share = arguments.seconds / len(campaigns) / _TURNS
    try:
        for _ in range(_TURNS):
            for campaign in campaigns:
                campaign.run(seconds=share)
    except KeyboardInterrupt:
        print("interrupted")
    return _report(campaigns)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for all targets together (default: 60)")
    parser.add_argument("--seed", type=int, help="where the random numbers begin (default: anywhere)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="try one case again, of the target in its name")
    names = [target.name for target in TARGETS]
    parser.add_argument("target", nargs="*", choices=[*names, []], help=f"{', '.join(names)} (default: all)")
    return parser.parse_args()


def _replay(path: Path) -> int:
    target = _target_of(path)
    finding = judge(target, path.read_bytes())
    print(f"{target.name}: " + ("nothing is wrong" if finding is None else f"{finding.problem}\n{finding.details}"))
    return 0 if finding is None else 1


def _target_of(path: Path) -> Target:
    """Of a finding by its name, of a case of the corpus by its directory."""
    for target in sorted(TARGETS, key=lambda target: -len(target.name)):
        if path.name.startswith(f"{target.name}-") or path.parent.name == target.name:
            return target
    sys.exit(f"{path}: call it TARGET-…, or put it into a directory TARGET")


def _report(campaigns: list[Campaign]) -> int:
    print(f"{'target':<12}{'cases':>10}{'a second':>10}{'slowest':>11}  findings")
    for one in campaigns:
        rate = one.tried / one.seconds if one.seconds else 0.0
        print(
            f"{one.target.name:<12}{one.tried:>10}{rate:>10.0f}{one.slowest * 1e3:>8.1f} ms  {len(one.findings) or '-'}"
        )
    findings = [finding for campaign in campaigns for finding in campaign.findings.values()]
    for finding in findings:
        _tell(finding)
    print(f"{sum(one.tried for one in campaigns)} cases, {len(findings) or 'no'} findings")
    return 1 if findings else 0


def _tell(finding: Finding) -> None:
    _FOUND.mkdir(parents=True, exist_ok=True)
    path = _FOUND / file_name(finding)
    path.write_bytes(finding.case)
    shown = repr(finding.case if len(finding.case) <= 100 else finding.case[:100] + b"...")
    print(f"\n{finding.target}: {finding.problem}\n  {len(finding.case)} bytes: {shown}")
    print(f"  again: python -m tests.fuzz --replay {os.path.relpath(path)}\n{finding.details}", end="")


if __name__ == "__main__":
    sys.exit(main())
