"""The record of the tests that passed on each kernel, and the tables that are generated from it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from scripts.kernels.record import RECORD, details, merged, problems, summary, write
from scripts.kernels.report import Run
from scripts.kernels.suites import SUITES, Outcome

PASSED = Outcome(passed=1)
NOTHING: dict[str, list[object]] = {"kernels": []}


def run(release: str, outcomes: dict[str, Outcome], guest: str = "uml", **missing: str) -> Run:
    costs = {f"≥ {since.strip('_').replace('_', '.')}": cost for since, cost in missing.items()}
    return Run(guest, release, outcomes, costs, 60.0, True, Path("/out"))


def test_the_record_in_the_repository_is_current_in_form() -> None:
    record = json.loads(RECORD.read_text())
    assert list(problems(record)) == []
    assert {".".join(one["release"].split(".")[:2]) for one in record["kernels"]} >= {"5.10", "6.1", "6.12"}
    assert all({"doctor", "demo", "scenario"} <= set(one["suites"]) for one in record["kernels"])


def test_what_was_run_again_replaces_what_was_before_and_the_rest_stays() -> None:
    record = merged(NOTHING, run("6.1.9", {"demo": PASSED, "unit": Outcome(passed=5)}))
    for later in (
        run("6.12.1", {"demo": PASSED}),
        run("6.1.10", {"unit": Outcome(passed=6)}),
        run("5.10.46", {"demo": PASSED}),
    ):
        record = merged(record, later)
    assert [entry["release"] for entry in record["kernels"]] == ["5.10.46", "6.1.10", "6.12.1"]
    suites = record["kernels"][1]["suites"]
    assert (suites["demo"]["passed"], suites["unit"]["passed"]) == (1, 6)
    assert list(problems(record)) == []


def test_failed_tests_that_are_run_again_are_added_to_the_others() -> None:
    live = Outcome(passed=90, skipped=Counter({"slow": 1}), failed=["a: 1", "b: 2", "c: 3"], seconds=100)
    again = Outcome(passed=1, skipped=Counter({"slow": 1}), failed=["c: 3"], seconds=10)
    record = merged(NOTHING, run("6.1.9", {"demo": PASSED, "live": live}))
    record = merged(record, run("6.1.9", {"live": again}), repeated=True)
    assert "91 passed, 1 of them in a second run, 2 skipped, **1 failed**" in details(record)
    record = merged(record, run("6.1.9", {"live": Outcome(passed=1, seconds=10)}), repeated=True)
    assert list(problems(record)) == []
    suites = record["kernels"][0]["suites"]
    assert suites["live"] == {
        "passed": 92,
        "skipped": {"slow": 2},
        "failed": [],
        "seconds": 120,
        "repeated": 2,
    }
    assert suites["demo"]["passed"] == 1


def test_a_second_run_in_which_nothing_passes_counts_none() -> None:
    record = merged(NOTHING, run("6.1.9", {"live": Outcome(passed=90, failed=["a: 1"])}))
    again = merged(record, run("6.1.9", {"live": Outcome(failed=["a: 1"])}), repeated=True)
    assert "90 passed, **1 failed**" in details(again)
    assert merged(record, run("6.1.10", {}), repeated=True) == record


@pytest.mark.parametrize("again", [Outcome(passed=1), Outcome(passed=3), Outcome(failed=["c: 3"])])
def test_failed_tests_of_another_run_are_not_added(again: Outcome) -> None:
    record = merged(NOTHING, run("6.1.9", {"live": Outcome(passed=90, failed=["a: 1", "b: 2"])}))
    with pytest.raises(ValueError):
        merged(record, run("6.1.9", {"live": again}), repeated=True)
    with pytest.raises(ValueError):
        merged(NOTHING, run("6.1.9", {"live": again}), repeated=True)


def test_missing_features_are_those_of_the_last_doctor() -> None:
    record = merged(NOTHING, run("6.1.9", {"doctor": PASSED}, _6_2="more requests"))
    record = merged(record, run("6.1.9", {"demo": PASSED}))
    assert record["kernels"][0]["missing"] == {"≥ 6.2": "more requests"}
    record = merged(record, run("6.1.9", {"doctor": PASSED}))
    assert record["kernels"][0]["missing"] == {}


def test_a_later_release_of_a_version_takes_its_place(tmp_path: Path) -> None:
    write(run("6.1.9", {"demo": PASSED}), tmp_path / "record")
    write(run("6.1.12", {"scenario": PASSED}), tmp_path / "record")
    (entry,) = json.loads((tmp_path / "record").read_text())["kernels"]
    assert (entry["release"], sorted(entry["suites"])) == ("6.1.12", ["demo", "scenario"])


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ({name: Outcome(passed=1) for name in SUITES}, "all passed"),
        ({"demo": Outcome(passed=1)}, "demo passed; doctor, scenario, unit, live, timing, bench, modules untested"),
        (
            {"demo": Outcome(passed=1), "unit": Outcome(failed=["a", "b"])},
            "2 failed; doctor, scenario, live, timing, bench, modules untested",
        ),
    ],
)
def test_what_was_never_run_is_called_untested(outcomes: dict[str, Outcome], verdict: str) -> None:
    assert f"| 6.1 | {verdict} | none |" in summary(merged(NOTHING, run("6.1.9", outcomes)))


def test_the_page_has_numbers_costs_and_reasons() -> None:
    live = Outcome(passed=90, skipped=Counter({"needs Linux 6.2": 3}), failed=["x"], seconds=180)
    on_6_1 = run("6.1.9", {"doctor": PASSED, "live": live}, _6_12="later", _6_2="more requests")
    page = details(merged(NOTHING, on_6_1))
    assert "90 passed, 3 skipped, **1 failed**" in page
    assert page.index("| 6.2 | more requests |") < page.index("| 6.12 | later |")
    assert "| needs Linux 6.2 | 6.1 (3 of live) |" in page


def test_guests_of_one_kernel_are_kept_apart_in_the_page_and_joined_in_the_summary() -> None:
    record = merged(NOTHING, run("6.1.9", {name: PASSED for name in SUITES if name != "bench"}))
    record = merged(record, run("6.1.0-50-amd64", {"bench": PASSED}, guest="qemu"))
    assert list(problems(record)) == []
    assert "| 6.1 | all passed | none |" in summary(record)
    assert "| 6.1.9 | User-Mode Linux |" in details(record)
    assert "| 6.1.0-50-amd64 | QEMU |" in details(record)


def test_the_page_has_the_figures_of_the_benchmark() -> None:
    names = ("created in place", "deleted as a group", "created and moved", "deleted one by one")
    figures = {"pairs": 100, **dict(zip(names, (0.25, 0.5, 7.0, 3.0), strict=True)), "times_faster": 13.3}
    figures |= {"waits_in_place": 20, "waits_moved": 1110}
    record = merged(NOTHING, run("6.1.9", {"bench": Outcome(passed=1, figures=figures)}))
    assert list(problems(record)) == []
    assert "| 6.1.9 | User-Mode Linux | 100 | 0.25 s | 0.50 s | 7.00 s | 3.00 s | 13.3 | 11.1 → 0.2 |" in details(
        record
    )


@pytest.mark.parametrize(
    ("field", "value"), [("guest", "xen"), ("suites", {"nonsense": {}}), ("suites", {"demo": {"passed": 1}})]
)
def test_a_record_of_another_form_is_found_out(field: str, value: object) -> None:
    record = merged(NOTHING, run("6.1.9", {"demo": PASSED}))
    record["kernels"][0][field] = value
    assert list(problems(record))


def test_a_record_without_a_key_is_found_out() -> None:
    record = merged(NOTHING, run("6.1.9", {"demo": PASSED}))
    del record["kernels"][0]["date"]
    assert list(problems(record))
