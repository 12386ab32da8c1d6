"""Options, ini settings and the marker: accepted and refused values, and the messages."""

from __future__ import annotations

import pytest

from .plugin import Project

pytestmark = pytest.mark.slow

USES_IT = "def test_it(netns): pass\n"


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    return Project(pytester)


def ini(project: Project, *lines: str) -> None:
    project.write("\n".join(["[pytest]", *lines]), "pytest.ini")


def test_help_lists_every_option_with_its_values(project: Project) -> None:
    told = " ".join(project.run("--help").outlines)
    for option in (
        "--netns-isolate=auto|always|never",
        "--netns-workers=auto|shared|own",
        "--netns-leaks=fail|warn|off",
        "--netns-pcap=[off|failed|all]",
        "--netns-impair=kernel|userspace",
        "--netns-keep",
        "--netns-dir=DIR",
        "--netns-nodes=NUMBER",
    ):
        assert option in told
    for name in ("isolate", "workers", "leaks", "pcap", "impair", "keep", "dir", "nodes"):
        assert f"netns_{name} " in told


def test_the_header_says_where_the_tests_run_and_what_is_on(project: Project) -> None:
    project.write(USES_IT)
    result = project.run("--netns-leaks=warn", "--netns-pcap")
    result.stdout.fnmatch_lines(
        ["netns: isolated in network and mount namespaces (test_it.py uses netns), leaks: warn, pcap: failed"]
    )
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--netns-isolate=sometimes", "--netns-isolate: 'sometimes' is not one of auto, always, never"),
        ("--netns-leaks=", "--netns-leaks: '' is not one of fail, warn, off"),
        ("--netns-pcap=some", "--netns-pcap: 'some' is not one of off, failed, all"),
        ("--netns-impair=magic", "--netns-impair: 'magic' is not one of kernel, userspace"),
        ("--netns-nodes=few", "--netns-nodes: 'few' must be a number of nodes, 0 or more"),
    ],
)
def test_an_unknown_value_is_a_usage_error_that_lists_the_valid_ones(project: Project, option: str, told: str) -> None:
    project.write(USES_IT)
    result = project.run(option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {told}"])


def test_a_path_that_was_taken_for_a_value_is_a_usage_error_with_the_way_out(project: Project) -> None:
    project.write(USES_IT)
    result = project.run("--netns-pcap", "test_it.py")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --netns-pcap: 'test_it.py' *; before a path write --netns-pcap=failed"])


def test_a_directory_that_cannot_be_is_a_usage_error_if_anything_is_to_be_captured(project: Project) -> None:
    project.write(USES_IT)
    result = project.run("--netns-pcap", "--netns-dir=test_it.py/captures")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --netns-dir: *test_it.py is not a directory"])
    project.run("--netns-dir=test_it.py/captures").assert_outcomes(passed=1)


def test_an_unknown_value_in_the_ini_file_names_the_file(project: Project) -> None:
    ini(project, "netns_leaks = ignore")
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: netns_leaks in pytest.ini: 'ignore' is not one of fail, warn, off"])


def test_a_truth_value_that_is_none_names_the_setting_and_the_file(project: Project) -> None:
    ini(project, "netns_keep = maybe")
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: netns_keep in pytest.ini: *'maybe'*; write yes or no"])


@pytest.mark.parametrize("how", ["option", "ini"])
def test_a_tilde_in_the_directory_is_the_home_directory(
    project: Project, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    home = project.path / "home"
    monkeypatch.setenv("HOME", str(home))
    project.write("def test_it(veth): pass\n")
    ini(project, "netns_dir = ~/captures" if how == "ini" else "")
    options = ["--netns-dir=~/captures"] if how == "option" else []
    project.run("--netns-pcap=all", *options).assert_outcomes(passed=1)
    assert [path.name for path in (home / "captures").glob("*/*")] == ["a-eth0--b-eth0.pcap"]


def test_the_command_line_wins_over_the_ini_file(project: Project) -> None:
    ini(project, "netns_leaks = warn", "netns_pcap = all", "netns_keep = yes")
    project.write(USES_IT)
    result = project.run("--netns-leaks=off")
    result.stdout.fnmatch_lines(["netns: *, leaks: off, pcap: all, keep"])


@pytest.mark.parametrize(
    ("mark", "told"),
    [
        ("netns(leak='off')", "marker netns has no 'leak'; it has leaks, pcap"),
        ("netns('off')", "marker netns takes keywords only: leaks, pcap"),
        ("netns(leaks='never')", "marker netns, leaks: 'never' is not one of fail, warn, off"),
        ("netns(pcap=True)", "marker netns, pcap: True is not one of off, failed, all"),
    ],
)
def test_a_wrong_marker_is_a_usage_error_that_names_the_test(project: Project, mark: str, told: str) -> None:
    project.write(f"import pytest\n@pytest.mark.{mark}\ndef test_it(): pass\n")
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: test_it.py::test_it: {told}"])


@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["alone", "xdist"])
def test_a_wrong_marker_that_comes_late_or_in_a_worker_is_an_error_of_its_test(
    project: Project, workers: list[str]
) -> None:
    project.write(
        "import pytest\ndef pytest_collection_modifyitems(items):\n"
        "    items[0].add_marker(pytest.mark.netns(leaks='nope', foo=1))\n",
        "conftest.py",
    )
    project.write("def test_it(netns): pass\ndef test_other(netns): pass\n")
    result = project.run(*workers)
    result.assert_outcomes(errors=1, passed=1)
    assert "test_it.py::test_it: marker netns, leaks: 'nope' is not one of fail, warn, off" in result.stdout.str()


def test_the_marker_is_registered(project: Project) -> None:
    project.write("import pytest\n@pytest.mark.netns(leaks='off')\ndef test_it(): pass\n")
    project.run("--strict-markers").assert_outcomes(passed=1)
    project.run("--markers").stdout.fnmatch_lines(["@pytest.mark.netns(leaks=…, pcap=…)*"])


def test_the_fixtures_are_listed_with_what_they_are(project: Project) -> None:
    told = "\n".join(project.run("--fixtures").outlines)
    for name in ("netns", "veth", "topology", "netns_factory", "veth_factory"):
        for prefix in ("", "class_", "module_", "session_"):
            assert f"\n{prefix}{name}" in told
    assert "no docstring available" not in told.partition("vethlib.pytest_netns")[2].partition("fixtures defined")[0]
