"""scripts/kernels, as far as it can be tested without starting a kernel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from scripts.kernels import __main__ as command
from scripts.kernels.bench import compared
from scripts.kernels.images import RELEASES, Image, with_interpreter
from scripts.kernels.packages import Apt, Unavailable
from scripts.kernels.report import Run, together
from scripts.kernels.suites import SUITES, Outcome, Suite, divided, failed_before, job, missing, outcome, selected

JUNIT = """\
<testsuites><testsuite>
<testcase classname="tests.live.test_a" name="test_passes"/>
<testcase classname="tests.live.test_a" name="test_is_skipped"><skipped message="needs Linux 6.2"/></testcase>
<testcase classname="tests.live.test_a" name="test_is_skipped_too"><skipped message="needs Linux 6.2"/></testcase>
<testcase classname="tests.live.test_b" name="test_fails[x]"><failure message="assert 1 == 2"/></testcase>
<testcase classname="tests.live.test_b" name="test_has_no_fixture"><error message="failed on setup"/></testcase>
<testcase classname="tests.live.test_b" name="test_has_no_fixture"><error message="failed on teardown"/></testcase>
</testsuite></testsuites>
"""
DOCTOR = [
    {"check": "system", "ok": True, "needed": True, "detail": "Linux", "cure": ""},
    {"check": "kernel ≥ 6.2", "ok": False, "needed": False, "detail": "two more requests", "cure": "a newer kernel"},
    {"check": "NET_ADMIN", "ok": False, "needed": True, "detail": "create links", "cure": "be root"},
]


def image(directory: Path, *lines: str) -> Image:
    (directory / "modules.dep").write_text("".join(f"{line}\n" for line in lines))
    return Image("6.12.1", directory / "linux", directory)


def test_modules_are_loaded_after_those_that_they_depend_on(tmp_path: Path) -> None:
    files = image(
        tmp_path,
        "net/8021q.ko: net/garp.ko net/stp.ko net/llc.ko",
        "net/bridge.ko: net/stp.ko net/llc.ko",
        "net/llc.ko:",
        "net/sch-netem.ko.xz:",
        "net/not_used.ko:",
    ).files_of_modules()
    names = [file.name.split(".")[0] for file in files]
    assert sorted(names) == ["8021q", "bridge", "garp", "llc", "sch-netem", "stp"]
    assert names.index("llc") < names.index("stp") < names.index("garp") < names.index("8021q")


def test_the_version_of_a_kernel_has_two_numbers(tmp_path: Path) -> None:
    assert image(tmp_path).version == "6.12"


def test_a_program_runs_with_another_loader(tmp_path: Path) -> None:
    program, own = Path(shutil.which("true") or ""), tmp_path / "own"
    found = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    loader = next(word for word in found.split() if "/ld-" in word)
    (tmp_path / "loader").symlink_to(loader)
    own.write_bytes(with_interpreter(program.read_bytes(), f"{tmp_path}/loader"))
    own.chmod(0o755)
    subprocess.run([own], check=True)
    (tmp_path / "loader").unlink()
    with pytest.raises(FileNotFoundError):
        subprocess.run([own], check=True)


def test_the_outcome_of_pytest_has_numbers_reasons_and_names(tmp_path: Path) -> None:
    (tmp_path / "live.xml").write_text(JUNIT)
    (tmp_path / "live.ended").write_text("1 42\n")
    result = outcome("live", tmp_path)
    assert (result.passed, result.skipped, result.seconds) == (1, {"needs Linux 6.2": 2}, 42)
    assert [name.partition(": ")[0] for name in result.failed] == [
        "tests/live/test_b.py::test_fails[x]",
        "tests/live/test_b.py::test_has_no_fixture",
    ]


def test_the_outcome_of_doctor_has_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "doctor.json").write_text(json.dumps(DOCTOR))
    (tmp_path / "doctor.ended").write_text("2 1\n")
    result = outcome("doctor", tmp_path)
    assert (result.passed, result.skipped.total(), len(result.failed)) == (1, 1, 1)
    assert missing(tmp_path) == {"≥ 6.2": "two more requests"}


def test_two_features_of_one_version_are_missed_with_both_costs(tmp_path: Path) -> None:
    also = DOCTOR[1] | {"detail": "goes down"}
    (tmp_path / "doctor.json").write_text(json.dumps([*DOCTOR, also]))
    assert missing(tmp_path) == {"≥ 6.2": "two more requests; goes down"}


@pytest.mark.parametrize("ended", [None, "", "1 3\n"])
@pytest.mark.parametrize("name", SUITES)
def test_a_suite_without_results_has_failed(tmp_path: Path, name: str, ended: str | None) -> None:
    if ended is not None:
        (tmp_path / f"{name}.ended").write_text(ended)
    assert len(outcome(name, tmp_path).failed) == 1


def test_a_suite_that_has_none_of_the_named_tests_has_not_failed(tmp_path: Path) -> None:
    for name in ("timing", "demo"):
        (tmp_path / f"{name}.ended").write_text("5 3\n")
    assert outcome("timing", tmp_path) == Outcome(seconds=3)
    assert len(outcome("demo", tmp_path).failed) == 1


def test_a_job_goes_on_after_a_suite_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, code in (("demo", 3), ("doctor", 0)):
        monkeypatch.setitem(SUITES, name, Suite(f"echo {name}; exit {code}", 60))
    script = job(selected(["demo", "doctor"])).replace("/run/out", str(tmp_path))
    subprocess.run(["sh", "-c", script], check=True)
    assert [(tmp_path / f"{name}.ended").read_text().split()[0] for name in ("demo", "doctor")] == ["3", "0"]
    assert (tmp_path / "demo.log").read_text() == "demo\n"


def test_some_tests_are_run_of_the_suites_that_have_them() -> None:
    some = ["tests/live/test_b.py", "tests/unit/test_a.py::test_x[a b]"]
    assert selected(SUITES, some) == {"unit": some[1:], "live": some[:1], "timing": some[:1]}
    assert selected(SUITES, []) == {}
    assert selected(["demo", "unit"]) == {"demo": [], "unit": ["tests/unit"]}


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_each_file_is_run_in_one_of_several_guests(parts: int) -> None:
    shares = divided(selected(["demo", "unit", "live"]), parts)
    assert len(shares) == parts
    assert [("demo" in share) for share in shares] == [True, *[False] * (parts - 1)]
    for name in ("unit", "live"):
        files = [file for share in shares for file in share[name]]
        assert sorted(files) == sorted(map(str, Path("tests", name).glob("test_*.py")))
        assert max(len(share[name]) for share in shares) < 2 * len(files) / parts


def test_no_guest_is_started_for_nothing() -> None:
    one = ["tests/live/test_apply.py::test_x[a b]", "tests/live/test_apply.py::test_y"]
    assert divided({"live": one}, 3) == [{"live": one}]


def test_what_several_guests_have_done_is_one_outcome(tmp_path: Path) -> None:
    def part(number: int, outcomes: dict[str, Outcome], ended: bool) -> Run:
        return Run("uml", "6.1.55", outcomes, {}, 100.0 * number, ended, tmp_path / f"{number}")

    first = {"demo": Outcome(1, seconds=2), "live": Outcome(5, Counter(netem=2), ["a"], 90)}
    second = {"live": Outcome(6, Counter(netem=1, vrf=1), ["b"], 70)}
    whole = together([part(1, first, True), part(2, second, True)])
    assert whole.outcomes == {"demo": first["demo"], "live": Outcome(11, Counter(netem=3, vrf=1), ["a", "b"], 90)}
    assert (whole.guest, whole.release, whole.seconds, whole.ended, whole.out) == (
        "uml",
        "6.1.55",
        200.0,
        True,
        tmp_path,
    )
    assert not together([part(1, first, True), part(2, second, False)]).ended


def test_the_name_of_a_test_may_have_blanks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SUITES, "unit", Suite("printf '%s\\n'", 60, ("tests/unit",)))
    script = job(selected(["unit"], ["tests/unit/test_a.py::test_x[a 'b']"]), "--lf").replace("/run/out", str(tmp_path))
    subprocess.run(["sh", "-c", script], check=True)
    assert (tmp_path / "unit.log").read_text() == "tests/unit/test_a.py::test_x[a 'b']\n--lf\n"


def test_a_slow_guest_gets_more_time() -> None:
    limit = SUITES["demo"].limit
    assert f"--kill-after=30 {limit} " in job(selected(["demo"]))
    assert f"--kill-after=30 {5 * limit} " in job(selected(["demo"]), patience=5)


def test_the_suite_of_modules_has_the_tests_that_need_one() -> None:
    files = SUITES["modules"].tests
    assert "tests/live/test_topology_impair.py" in files
    assert all("needs_module(" in Path(file).read_text() for file in files)


def test_the_benchmark_is_compared_by_medians(tmp_path: Path) -> None:
    ours = {"created in place": [(0.2, 9), (9.0, 8), (0.1, 70)], "deleted as a group": [(0.3, 1)]}
    figures = compared(100, ours | {"created and moved": [(3.0, 200)], "deleted one by one": [(2.0, 100), (2.0, 100)]})
    assert (figures["created in place"], figures["times_faster"]) == (0.2, 10.0)
    assert (figures["waits_in_place"], figures["waits_moved"]) == (10, 300)
    (tmp_path / "bench.json").write_text(json.dumps(figures))
    (tmp_path / "bench.ended").write_text("0 42\n")
    assert (outcome("bench", tmp_path).passed, outcome("bench", tmp_path).figures) == (1, figures)
    (tmp_path / "bench.ended").write_text("1 42\n")
    assert (outcome("bench", tmp_path).passed, len(outcome("bench", tmp_path).failed)) == (0, 1)


def test_what_failed_can_be_run_again(tmp_path: Path) -> None:
    assert failed_before(tmp_path) == []
    (tmp_path / "live.xml").write_text(JUNIT)
    assert failed_before(tmp_path) == [
        "tests/live/test_b.py::test_fails[x]",
        "tests/live/test_b.py::test_has_no_fixture",
    ]


def test_what_failed_in_one_of_several_guests_can_be_run_again(tmp_path: Path) -> None:
    for number, content in enumerate((JUNIT, JUNIT.replace("test_b", "test_c")), start=1):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}/live.xml").write_text(content)
    assert [test.partition("::")[0] for test in failed_before(tmp_path)] == [
        *["tests/live/test_b.py"] * 2,
        *["tests/live/test_c.py"] * 2,
    ]


@pytest.mark.parametrize("flags", [["--tests", "tests/live/test_apply.py"], ["--pytest", "-k x"]])
def test_a_record_is_of_whole_suites(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--record", *flags])
    assert "--record" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--versions", "--suites"])
def test_an_unknown_version_or_suite_is_refused(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main([flag, "nonsense"])
    assert "nonsense" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--parallel", "--shards"])
@pytest.mark.parametrize("count", ["0", "-1", "x"])
def test_a_number_of_guests_is_at_least_one(flag: str, count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main([f"{flag}={count}"])
    assert flag in capsys.readouterr().err


@pytest.mark.parametrize("kind", [[], ["--qemu"]])
@pytest.mark.parametrize(("within", "code"), [([], 2), (["--within", "60"], 0)])
def test_a_kernel_that_cannot_be_had_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], within: list[str], code: int, kind: list[str]
) -> None:
    def unavailable(*_: object) -> None:
        raise Unavailable("no mirror")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(command, "uml_image", unavailable)
    monkeypatch.setattr(command, "emulator", unavailable)
    assert command.main(["--versions", "6.1", *within, *kind]) == code
    assert "no mirror" in capsys.readouterr().err


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert command.main([]) == 2
    assert "root" in capsys.readouterr().err


@pytest.fixture
def fake_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An apt-get whose sources name a mirror; it logs all other requests."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("apt-get", "apt-cache", "dpkg-deb"):
        (programs / name).write_text(
            f"#!/bin/sh\n[ $1 != indextargets ] || echo 'Debian http://mirror.invalid/debian/'\n"
            f'echo {name} "$@" >>{tmp_path}/asked\n'
        )
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return tmp_path / "asked"


@pytest.mark.parametrize("suite", RELEASES.values())
def test_packages_come_from_the_mirror_of_the_machine(tmp_path: Path, fake_apt: Path, suite: str) -> None:
    client = Apt(tmp_path / "apt", suite, time.monotonic() + 60)
    line = (tmp_path / "apt/sources.list").read_text()
    assert line.split()[-3:] == ["http://mirror.invalid/debian/", suite, "main"]
    assert str(tmp_path / "apt/lists") in (tmp_path / "apt/apt.conf").read_text()
    with pytest.raises(Unavailable):
        client.unpack(["user-mode-linux"], tmp_path / "into")


def test_dependencies_are_read_from_what_apt_prints(tmp_path: Path, fake_apt: Path) -> None:
    (tmp_path / "bin/apt-cache").write_text(
        "#!/bin/sh\necho 'Package: a\nPre-Depends: z\nDepends: b (>= 4.3~), c:any (= 1) | d, lib-e+1.2\nSuggests: f'\n"
    )
    (tmp_path / "bin/apt-get").write_text(
        "#!/bin/sh\necho Debian uri\necho 'Inst libc6 (2.41 Debian:13 [amd64])\nInst a (1 [amd64])\nConf a (1)'\n"
    )
    client = Apt(tmp_path / "apt", "sid", time.monotonic() + 60)
    assert client.depends("a") == ["b", "c", "d", "lib-e+1.2"]
    assert client.closure("a") == ["libc6", "a"]


def test_a_machine_without_a_mirror_has_no_kernels(tmp_path: Path, fake_apt: Path) -> None:
    with pytest.raises(Unavailable):
        Apt(tmp_path / "apt", "bullseye-security", time.monotonic() + 60)


def test_apt_ends_in_time(tmp_path: Path, fake_apt: Path) -> None:
    (tmp_path / "bin/apt-get").write_text("#!/bin/sh\n[ $1 != indextargets ] || exec echo Debian uri\nexec sleep 60\n")
    with pytest.raises(Unavailable):
        Apt(tmp_path / "apt", "sid", time.monotonic() + 0.5)
