"""The parts of the benchmarks that measure nothing: plans, turns, medians, ratios, goals, pictures."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from ipaddress import ip_interface
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import readme
from benchmarks.__main__ import main
from benchmarks.chart import chart
from benchmarks.contestants import CONTESTANTS, Unavailable, built
from benchmarks.contestants.ring import address
from benchmarks.machine import Conditions, Machine
from benchmarks.record import SCHEMA, NotResumable, record, results_of
from benchmarks.report import duration, growth_table, header, table, targets_table
from benchmarks.results import WHOLE, Phase, Result, Run
from benchmarks.run import Failed, parsed, rounds
from benchmarks.targets import growth, outcomes
from benchmarks.workloads import FEW, WORKLOADS, Job, plan
from tests.refusing import raises
from vethlib.topology import ring
from vethlib.topology.design.layout import lay_out

CONDITIONS = Conditions(
    Machine("a CPU", 2, 4.0, "Linux <6.1>", "3.11.0"),
    queues=1,
    repeat=3,
    load=(0.1, 0.2),
    runs=30,
    idle=29,
    versions={"ip": "6.1"},
    missing={"vishvananda": "install golang-go"},
)


def result(workload: str, n: int, **walls: dict[str, list[float]]) -> Result:
    """A result with the seconds that each contestant spent on a phase in each round: A={"create": [1.0, 2.0]}."""
    runs = []
    for name, phases in walls.items():
        for number, spent in enumerate(zip(*phases.values(), strict=True)):
            parts = [Phase(phase, wall, wall / 4, wall / 2) for phase, wall in zip(phases, spent, strict=True)]
            runs.append(Run(name, number, tuple(parts)))
    return Result(Job(WORKLOADS[workload], n, WORKLOADS[workload].peers), runs)


@pytest.fixture
def lifecycle() -> Result:
    return result(
        "lifecycle",
        10,
        vethlib={"create": [0.3, 0.2, 0.9], "delete": [0.1, 0.1, 0.1]},
        limit={"create": [0.1, 0.2, 0.3], "delete": [0.15, 0.15, 0.15]},
        ip={"create": [1.0, 1.0, 1.0], "delete": [14.0, 14.0, 14.0]},
    )


def test_a_row_has_the_median_and_the_spread_for_one_item(lifecycle: Result) -> None:
    (row,) = [row for row in lifecycle.rows() if (row.phase, row.contestant) == ("create", "vethlib")]
    assert (row.wall.median, row.wall.low, row.wall.high) == (0.03, 0.02, 0.09)
    assert (row.user, row.system) == (0.0075, 0.015)
    assert row.base == "limit"
    assert row.ratio == pytest.approx(1.5)


def test_the_whole_is_the_median_of_the_sums_of_each_round(lifecycle: Result) -> None:
    assert lifecycle.phases == ["create", "delete", WHOLE]
    assert lifecycle.wall("vethlib", WHOLE) == pytest.approx(0.04)
    assert lifecycle.ratio("ip", WHOLE, "vethlib") == pytest.approx(37.5)


def test_phases_that_are_not_parts_of_one_whole_are_not_added_up() -> None:
    assert result("cache", 2, vethlib={"sync": [1.0], "lookup": [1.0]}).phases == ["sync", "lookup"]


def test_without_limit_the_ratio_is_to_vethlib() -> None:
    moved = result("move", 1, vethlib={"move": [1.0]}, ip={"move": [3.0]})
    assert [(row.contestant, row.base, row.ratio) for row in moved.rows()] == [
        ("vethlib", "vethlib", 1.0),
        ("ip", "vethlib", 3.0),
    ]


def test_rows_come_in_the_order_of_the_contestants_not_of_the_runs(lifecycle: Result) -> None:
    assert lifecycle.contestants == ["limit", "vethlib", "ip"]


def test_everybody_is_first_in_turn() -> None:
    assert list(rounds(["a", "b", "c"], 2)) == [(0, "a"), (0, "b"), (0, "c"), (1, "b"), (1, "c"), (1, "a")]


def test_the_standard_set_has_every_workload_and_lifecycle_and_the_ring_at_two_sizes() -> None:
    jobs = plan([])
    assert {job.workload.name for job in jobs} == set(WORKLOADS)
    assert [job.n for job in jobs if job.workload.name == "lifecycle"] == [500, 2000]
    rings = {job.n: job.peers for job in jobs if job.workload.name == "ring"}
    assert rings == {100: ("limit", "vethlib", "munet"), 1000: ("limit", "vethlib")}


def test_growth_doubles_up_to_its_size() -> None:
    assert [job.n for job in plan(["growth"])] == [500, 1000, 2000, 4000, 8000, 16000]
    assert [job.n for job in plan(["growth"], n=3)] == [1, 3]


def test_among_the_most_pairs_only_contestants_without_ipv6_grow() -> None:
    *fewer, most = plan(["growth"])
    assert most.peers == ("limit-no-ipv6", "vethlib-no-ipv6")
    assert all({"limit", "vethlib", *most.peers} <= set(job.peers) for job in fewer)
    assert plan(["growth"], peers=["limit"]) == [Job(job.workload, job.n, ("limit",)) for job in fewer]


def test_peers_restrict_who_takes_part_and_nothing_else() -> None:
    (job,) = plan(["create"], peers=["ip", "vethlib"])
    assert job.peers == ("vethlib", "ip")
    assert plan(["move"], peers=["limit"]) == []


def test_every_contestant_of_a_workload_exists() -> None:
    assert {peer for workload in WORKLOADS.values() for peer in workload.peers} == set(CONTESTANTS)


@pytest.mark.parametrize("output", ["", "[]", "{}", '{"phases": [{"name": "create"}]}', '{"phases": [], "figures": 1}'])
def test_a_report_that_is_none_is_a_failure_that_shows_it(output: str) -> None:
    with raises(Failed, output=output):
        parsed(output, "ip", 0)


def test_a_report_may_have_no_figures_and_no_version() -> None:
    phase = {"name": "set", "wall": 1, "user": 0, "system": 0}
    assert parsed(json.dumps({"phases": [phase]}), "ip", 3) == Run("ip", 3, (Phase("set", 1.0, 0.0, 0.0),))


def test_goals_are_compared_with_what_was_run_and_with_nothing_else(lifecycle: Result) -> None:
    found = {outcome.what: outcome for outcome in outcomes([lifecycle])}
    assert list(found) == ["lifecycle, 10 pairs: vethlib ÷ limit", "lifecycle, 10 pairs: ip ÷ vethlib"]
    assert [outcome.met for outcome in found.values()] == [False, True]
    assert outcomes([]) == []


def test_rates_times_and_figures_have_goals_too() -> None:
    events = result("events", 100, vethlib={"events": [0.001]})
    imports = result("import", 10, vethlib={"import": [0.12]})
    imports.runs = [replace(run, figures={"rss_mib": 5.0}) for run in imports.runs]
    speed, time, memory = outcomes([events, imports])
    assert [speed.measured, time.measured, memory.measured] == pytest.approx([100_000, 12, 5])
    assert [speed.unit, time.unit, memory.unit] == ["", "ms", "MiB"]
    assert [speed.met, time.met, memory.met] == [True, True, False]


def test_the_goals_of_a_ring_are_for_the_whole_of_it_until_the_kernel_is_done() -> None:
    whole = result(
        "ring",
        100,
        limit={"build": [1.0], "teardown": [0.1], "gone": [0.9]},
        vethlib={"build": [1.0], "teardown": [0.3], "gone": [1.3]},
        munet={"build": [400.0], "teardown": [1.0], "gone": [1.0]},
    )
    of_limit, of_munet = outcomes([whole])
    assert (of_limit.what, of_munet.what) == (
        "ring, 100 nodes: vethlib ÷ limit",
        "ring, 100 nodes: munet ÷ vethlib",
    )
    assert [of_limit.measured, of_munet.measured] == pytest.approx([1.3, 402 / 2.6])
    assert [of_limit.met, of_munet.met] == [True, True]


def test_the_ring_that_is_proved_has_the_addresses_of_a_topology() -> None:
    wires = lay_out(ring(300)).wires  # beyond 256, the third byte of 10.0.0.0/8 carries over
    proved = [
        [
            ip_interface(f"{address(wire, far, family)}/{prefix}")
            for family, prefix in ((socket.AF_INET, 24), (socket.AF_INET6, 64))
        ]
        for wire in range(300)
        for far in (0, 1)
    ]
    assert [list(port.addresses or ()) for wire in wires for port in (wire.a, wire.b)] == proved


@pytest.mark.slow
def test_munet_that_cannot_be_had_is_unavailable_and_leaves_nothing_half_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(built, "_BUILT", tmp_path / "built")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with raises(Unavailable, needs="munet"):
        built.munet()
    assert not list(tmp_path.glob("built/*"))


def test_growth_is_the_cost_among_many_beside_that_among_few() -> None:
    sizes = [
        result("growth", n, vethlib={"create": [wall]}, limit={"create": [n / 10]})
        for n, wall in ((10, 1.0), (20, 2.2), (40, 4.4))
    ]
    assert [n for n, _ in growth(sizes)] == [10, 20, 40]
    assert growth(sizes)[-1][1] == pytest.approx({"limit": 1.0, "vethlib": 1.1})
    (outcome,) = outcomes(sizes)
    assert outcome.what == "growth, cost of a pair at 40 ÷ at 10: vethlib ÷ limit"
    assert outcome.measured == pytest.approx(1.1)
    assert "40" in growth_table(sizes)


def figures(workload: str, n: int, **figures: float) -> Result:
    """A result of vethlib alone that has one round with these figures."""
    job = Job(WORKLOADS[workload], n, ("vethlib",))
    return Result(job, [Run("vethlib", 0, (), figures)])


def test_upkeep_has_few_pairs_and_many() -> None:
    assert [job.n for job in plan(["upkeep"])] == [FEW, 4000]
    assert [job.n for job in plan(["upkeep"], n=FEW)] == [FEW]


def test_upkeep_is_what_one_pair_costs_among_many_beside_that_among_few_and_the_memory_of_an_interface() -> None:
    few = figures("upkeep", 4, put_ms=2.0, put_cpu_ms=1.0, lost_ms=8.0, rss_mib=30.0)
    many = figures("upkeep", 1028, put_ms=2.5, put_cpu_ms=2.0, lost_ms=8.0, rss_mib=50.0)
    found = {outcome.what: (outcome.measured, outcome.met) for outcome in outcomes([many, few])}
    assert found == {
        "upkeep, a put among 1028 pairs ÷ among 4": (1.25, True),
        "upkeep, a put among 1028 pairs ÷ among 4, CPU time": (2.0, False),
        "upkeep, a lost namespace among 1028 pairs ÷ among 4": (1.0, True),
        "upkeep, memory for an interface": (10.0, True),
    }
    assert outcomes([many]) == []


def test_a_resync_is_compared_with_the_bare_dumps_of_the_same() -> None:
    agent = figures("agent", 100, resync=0.3)
    agent.runs[0] = replace(agent.runs[0], phases=(Phase("bare dumps", 0.2, 0.0, 0.0),))
    assert [outcome.measured for outcome in outcomes([agent]) if "÷ bare dumps" in outcome.what] == [pytest.approx(1.5)]


def test_a_table_says_everything_of_a_job(lifecycle: Result) -> None:
    lifecycle.failures["pyroute2"] = "OSError: no"
    text = table(lifecycle)
    assert "lifecycle, 10 pairs" in text
    assert "÷ limit" in text
    assert "20 000–90 000" in text
    assert "pyroute2: failed: OSError: no" in text
    assert "medians of 3 rounds" in text


def test_a_table_of_failures_alone_says_them() -> None:
    failed = Result(Job(WORKLOADS["set"], 1, ("ip",)), failures={"ip": "gone"})
    assert table(failed).splitlines()[1:] == ["    ip: failed: gone"]


def test_the_header_names_the_machine_the_queues_and_who_is_missing() -> None:
    text = header(CONDITIONS)
    for expected in ("a CPU", "Linux <6.1>", "1 queue per end", "vishvananda  not available: install golang-go"):
        assert expected in text


def test_goals_are_shown_with_their_sense(lifecycle: Result) -> None:
    lines = targets_table([lifecycle]).splitlines()
    assert lines[2].split()[0] == "✗"
    assert lines[2].endswith("≤ 1.1")
    assert lines[3].split()[0] == "✓"
    assert lines[3].endswith("≥ 35")
    assert targets_table([]) == growth_table([]) == ""


@pytest.mark.parametrize(("seconds", "text"), [(0, "0"), (2e-7, "0.200"), (2.4e-6, "2.40"), (0.01625, "16 250")])
def test_durations_have_three_digits_that_count(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_chart_is_xml_with_a_bar_and_a_title_for_each_contestant(lifecycle: Result) -> None:
    lifecycle.failures["pyroute2"] = "<&>"
    root = ElementTree.fromstring(chart([lifecycle], CONDITIONS))
    svg = "{http://www.w3.org/2000/svg}"
    titles = [title.text for title in root.iter(f"{svg}title")]
    assert len(titles) == 3
    assert all(title and "total" in title for title in titles)
    bars = [bar for bar in root.iter(f"{svg}rect") if bar.get("class") != "paper"]
    assert [bar.get("class") for bar in bars] == ["limit", "vethlib", "bar"]
    assert all(0 < float(bar.get("width", 0)) < 880 for bar in bars)


def test_a_chart_shares_a_panel_among_the_sizes_of_growth_and_skips_what_has_no_runs() -> None:
    sizes = [result("growth", n, vethlib={"create": [n * 1e-3]}) for n in (1, 2)]
    text = chart([*sizes, Result(Job(WORKLOADS["set"], 1, ("ip",)))], CONDITIONS)
    assert "growth, 1–2 pairs" in text
    assert "set, 1" not in text


def test_the_longest_bar_is_a_thousand_times_the_shortest_and_both_are_seen() -> None:
    far = result("move", 1, vethlib={"move": [1e-5]}, ip={"move": [1e-2]})
    root = ElementTree.fromstring(chart([far], CONDITIONS))
    widths = [float(bar.get("width", 0)) for bar in root.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert widths[0] > 50
    assert widths[1] > 2 * widths[0]


def test_the_json_has_all_that_was_measured_in_plain_values(lifecycle: Result) -> None:
    lifecycle.failures["pyroute2"] = "no"
    whole = json.loads(json.dumps(record([lifecycle], CONDITIONS)))
    assert list(whole) == [
        "schema",
        "machine",
        "queues",
        "repeat",
        "load",
        "runs",
        "idle",
        "versions",
        "missing",
        "jobs",
        "targets",
    ]
    assert whole["schema"] == SCHEMA
    (job,) = whole["jobs"]
    assert len(job["rows"]) == 9
    assert len(job["runs"]) == 9
    assert job["failures"] == {"pyroute2": "no"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lifecylce"], "unknown workload 'lifecylce'; the workloads are lifecycle, create"),
        (["--peers", "vethlib,iproute"], "unknown peer 'iproute'; the peers are limit, vethlib"),
        (["-n", "0"], "-n: '0' must be a number from 1 to 65536"),
        (["-n", "many"], "-n: 'many' must be a number"),
        (["--repeat", "0"], "--repeat: '0' must be a number"),
        (["--queues", "x"], "--queues: 'x' must be a number from 0 to 4096"),
        (["--json", "/no/such/place"], "--json: '/no/such/place' cannot be written"),
        (["move", "--peers", "limit"], "none of limit does move"),
    ],
)
def test_a_bad_argument_is_named_with_what_is_valid(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_a_directory_is_no_file_to_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--svg", str(tmp_path)])
    assert "cannot be written" in capsys.readouterr().err


def test_the_results_in_a_record_are_those_it_was_made_of(lifecycle: Result) -> None:
    lifecycle.failures["pyroute2"] = "no"
    lifecycle.runs[0] = replace(lifecycle.runs[0], figures={"rss_mib": 5.0}, version="1", busy=True)
    text = json.dumps(record([lifecycle], CONDITIONS))
    assert results_of(text, CONDITIONS.machine, CONDITIONS.queues, CONDITIONS.repeat) == [lifecycle]


@pytest.mark.parametrize(
    ("machine", "queues", "repeat"),
    [(replace(CONDITIONS.machine, cpu="another"), 1, 3), (CONDITIONS.machine, 2, 3), (CONDITIONS.machine, 1, 5)],
)
def test_a_run_is_not_resumed_under_other_conditions(
    lifecycle: Result, machine: Machine, queues: int, repeat: int
) -> None:
    with pytest.raises(NotResumable):
        results_of(json.dumps(record([lifecycle], CONDITIONS)), machine, queues, repeat)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"machine": {"cpu": 1}}', "null"])
def test_a_file_that_is_no_record_is_not_resumed(text: str) -> None:
    with pytest.raises(NotResumable):
        results_of(text, CONDITIONS.machine, 1, 3)


@pytest.mark.parametrize("page", [readme.README, readme.EXPLAINED, readme.ALL], ids=lambda page: page.name)
def test_the_figures_of_a_page_are_those_of_the_record(page: Path) -> None:
    recorded = json.loads(readme.RECORD.read_text(encoding="utf-8"))
    text = page.read_text(encoding="utf-8")
    assert text.split(readme.BEGIN)[1].split(readme.END)[0] == readme.pages(recorded)[page]


def test_a_lever_is_compared_with_the_limit_that_pulls_it_too() -> None:
    walls = {"limit": 1.0, "vethlib": 1.2, "limit-no-ipv6": 0.5, "vethlib-no-ipv6": 0.55, "vethlib-together": 0.9}
    job = Job(WORKLOADS["lifecycle"], 1, tuple(walls))
    runs = [Run(name, 0, (Phase("create", wall, wall, wall),), {}, "", "") for name, wall in walls.items()]
    rows = {row.contestant: row for row in Result(job, runs).rows()}
    expected = {
        "vethlib": ("limit", 1.2),
        "vethlib-no-ipv6": ("limit-no-ipv6", 1.1),
        "vethlib-together": ("limit", 0.9),
    }
    for name, (base, ratio) in expected.items():
        assert rows[name].base == base
        assert rows[name].ratio == pytest.approx(ratio)


def test_another_version_of_the_go_library_takes_part_where_it_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("VETHLIB_BENCH_GOPATH", raising=False)
    with raises(Unavailable, needs="VETHLIB_BENCH_GOPATH"):
        CONTESTANTS["vishvananda-given"].command()
    monkeypatch.setenv("VETHLIB_BENCH_GOPATH", str(tmp_path))
    with pytest.raises(Unavailable):
        CONTESTANTS["vishvananda-given"].command()
