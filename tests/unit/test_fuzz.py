"""The fuzzer: its past findings stay fixed, and it finds the faults that it is meant to find."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.fuzz import engine, mutation
from tests.fuzz.__main__ import main
from tests.fuzz.engine import CORPUS, Campaign, Target, corpus, judge
from tests.fuzz.targets import TARGETS

CASES = [
    pytest.param(target, case, id=f"{target.name}/{name}") for target in TARGETS for name, case in corpus(target.name)
]


@pytest.mark.parametrize(("target", "case"), CASES)
def test_what_was_once_found_is_read_or_refused(target: Target, case: bytes) -> None:
    finding = judge(target, case)
    assert finding is None, f"{finding.problem}\n{finding.details}"


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_few_cases_of_each_target_find_nothing(target: Target) -> None:
    campaign = Campaign(target, Random(f"1 {target.name}"))
    campaign.run(cases=30)
    assert [finding.problem for finding in campaign.findings.values()] == []


def test_every_directory_of_the_corpus_is_of_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= {target.name for target in TARGETS}
    assert len({target.name for target in TARGETS}) == len(TARGETS)


def raising(case: bytes) -> None:
    if b"\xff\xff" in case:
        raise KeyError("unexpected")
    if case:
        raise ValueError("as documented")


def slow(case: bytes) -> None:
    for _ in range(3_000_000 if case else 0):
        pass


def large(case: bytes) -> object:
    return bytes(range(256)) * (1 << 18) if case else b""


def faulty(run: Any, **bounds: Any) -> Target:
    return Target(
        "faulty", run, lambda random, seeds: mutation.raw(random, seeds[0]), (b"abc",), (ValueError,), **bounds
    )


@pytest.mark.parametrize(
    ("target", "case", "problem"),
    [
        (faulty(raising), b"a\xff\xffb", "KeyError: 'unexpected'"),
        (faulty(raising), b"abc", ""),
        (faulty(slow, seconds=0.01), b"abc", "takes "),
        (faulty(large, memory=16 << 20), b"abc", "takes 6"),
    ],
)
def test_what_is_not_documented_slow_or_large_is_a_finding(target: Target, case: bytes, problem: str) -> None:
    finding = judge(target, case)
    assert (finding.problem if finding else "").startswith(problem)
    assert (finding is None) == (not problem)
    assert judge(target, b"") is None


def test_a_case_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(case: bytes) -> None:
        tries = 0
        while True:
            try:
                tries += 1
                raise ValueError
            except Exception:
                tries += 1

    monkeypatch.setattr(engine, "_HANGS", 0.1)
    finding = judge(faulty(endless), b"abc")
    assert finding is not None
    assert finding.problem.startswith("does not end in")


def test_a_finding_is_made_small_and_the_same_seed_finds_it_again() -> None:
    found = []
    for _ in range(2):
        campaign = Campaign(faulty(raising), Random(7))
        campaign.run(cases=2000)
        found.append([finding.case for finding in campaign.findings.values()])
    assert found == [[b"\xff\xff"]] * 2


def test_a_short_run_tells_of_every_target_and_a_case_can_be_tried_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["fuzz", "--seconds", "0.3", "--seed", "1", "alias", "nsid"])
    assert main() == 0
    told = capsys.readouterr().out
    assert [line.split()[0] for line in told.splitlines()[2:-1]] == ["nsid", "alias"]
    (tmp_path / "alias-1").write_bytes(b"vethlib label=x name=y")
    monkeypatch.setattr("sys.argv", ["fuzz", "--replay", str(tmp_path / "alias-1")])
    assert main() == 0
