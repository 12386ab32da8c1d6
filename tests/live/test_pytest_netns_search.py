"""A run is isolated from the host's network only if the plugin is used, and then despite odd settings."""

from __future__ import annotations

import os

import pytest

from .plugin import Project, unprivileged

pytestmark = pytest.mark.slow

TOLD = """
import os
with open("where", "w") as file:
    print(os.readlink("/proc/thread-self/ns/net"), file=file)
"""
OWN = """
import pytest

@pytest.fixture
def topology():
    return "mine"
"""
USES_OWN = "def test_it(topology):\n    assert topology == 'mine'\n" + TOLD.replace("\n", "\n    ")
USES_OURS = "def test_it(veth):\n" + TOLD.replace("\n", "\n    ")


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    return Project(pytester)


def is_at_home(project: Project) -> bool:
    return (project.path / "where").read_text().strip() == os.readlink("/proc/thread-self/ns/net")


@pytest.mark.parametrize("where", ["conftest.py", "shared.py, imported", "shared.py, as a plugin"])
def test_a_project_with_a_fixture_of_the_name_stays_on_the_host(project: Project, where: str) -> None:
    file, _, how = where.partition(", ")
    project.write(OWN, file)
    if how:
        line = "from shared import topology" if how == "imported" else "pytest_plugins = ['shared']"
        project.write(line, "conftest.py")
    project.write(USES_OWN)
    result = project.run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["netns: not isolated (no test uses it)*"])
    assert is_at_home(project)


def test_a_conftest_speaks_for_its_own_directory_only(project: Project) -> None:
    project.write(OWN, "theirs/conftest.py")
    project.write(USES_OWN, "theirs/test_theirs.py")
    project.write("def test_it(topology):\n    assert topology('a -- b')\n", "ours/test_ours.py")
    result = project.run()
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["netns: isolated in * (ours/test_ours.py uses topology)*"])
    project.run("theirs").stdout.fnmatch_lines(["netns: not isolated*"])


def test_a_conftest_may_have_its_fixtures_from_anywhere(project: Project) -> None:
    project.write("", "tests/__init__.py")
    project.write(OWN, "tests/fixtures.py")
    project.write("from .fixtures import *\n", "tests/conftest.py")
    project.write("", "tests/deep/er/__init__.py")
    project.write("", "tests/deep/__init__.py")
    project.write(USES_OWN, "tests/deep/er/test_it.py")
    project.run().assert_outcomes(passed=1)
    assert is_at_home(project)
    # This one is not loaded before the decision.
    project.write("", "tests/conftest.py")
    project.write("from ...fixtures import *\n", "tests/deep/er/conftest.py")
    project.run().assert_outcomes(passed=1)
    assert is_at_home(project)
    project.write("", "tests/deep/er/conftest.py")
    project.write("import fixtures\nglobals().update(topology=fixtures.topology)\n", "conftest.py")
    (project.path / "tests" / "fixtures.py").rename(project.path / "fixtures.py")
    project.run().assert_outcomes(passed=1)
    assert is_at_home(project)


def test_a_conftest_that_imports_other_fixtures_hides_none_of_ours(project: Project) -> None:
    project.write("import pytest\n@pytest.fixture\ndef server(): pass\n", "shared.py")
    project.write("from shared import *\nfrom vethlib import topology\n", "conftest.py")
    project.write("def test_it(server, topology):\n    assert topology('a -- b')\n")
    result = project.run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["netns: isolated in * (test_it.py uses topology)*"])


def test_tests_with_a_fixture_of_the_name_are_not_watched(project: Project) -> None:
    project.write(OWN, "conftest.py")
    leaves = "    from vethlib import ns\n    ns.Netns.create('left').close()\n"
    project.write(f"def test_it(topology):\n{leaves}")
    project.run("--netns-isolate=always").assert_outcomes(passed=1)


def test_a_fixture_that_extends_ours_is_ours(project: Project) -> None:
    project.write(OWN.replace("():", "(topology):").replace('"mine"', "topology('a -- b')"), "conftest.py")
    project.write("def test_it(topology):\n    assert topology['a'].ipv4 == '10.0.0.1'\n")
    result = project.run(before=unprivileged())
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["netns: isolated in user* (conftest.py uses topology)*"])


@pytest.mark.parametrize("privileged", [True, False], ids=["root", "anybody"])
def test_what_only_pytest_can_know_is_made_up_for_before_the_first_test(project: Project, privileged: bool) -> None:
    project.write("import pytest\n@pytest.fixture\ndef net(topology):\n    return topology('a -- b')\n", "shared.py")
    project.write("pytest_plugins = ['shared']", "conftest.py")
    project.write("def test_it(net):\n" + TOLD.replace("\n", "\n    "))
    kinds = "network and mount" if privileged else "user, network and mount"
    result = project.run(before=None if privileged else unprivileged())
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "netns: not isolated (no test uses it)*",
            f"netns: isolated in {kinds} namespaces (test_it.py::test_it uses it)",
        ]
    )
    assert not is_at_home(project)


def test_a_worker_of_xdist_makes_up_for_it_too_where_it_can(project: Project) -> None:
    project.write("import pytest\n@pytest.fixture\ndef net(topology):\n    return topology('a -- b')\n", "shared.py")
    project.write("pytest_plugins = ['shared']", "conftest.py")
    project.write("def test_it(net):\n" + TOLD.replace("\n", "\n    "))
    project.run("-n", "1").assert_outcomes(passed=1)
    assert not is_at_home(project)
    result = project.run("-n", "1", "-rs", before=unprivileged())
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*an ordinary user needs a user namespace: --netns-isolate=always"])
    project.run("-n", "1", "--netns-isolate=always", before=unprivileged()).assert_outcomes(passed=1)


@pytest.mark.parametrize("option", ["--ignore=test_it.py", "--ignore-glob=*_it.py", "--ignore=../{name}/test_it.py"])
def test_what_is_ignored_does_not_count(project: Project, option: str) -> None:
    project.write(USES_OURS)
    project.write("def test_other():\n" + TOLD.replace("\n", "\n    "), "test_other.py")
    project.run(option.format(name=project.path.name)).assert_outcomes(passed=1)
    assert is_at_home(project)


@pytest.mark.parametrize(
    ("settings", "file", "arguments"),
    [
        ("python_files = checks/*.py", "tests/checks/any.py", []),
        ("python_functions = check_* *_holds", "test_it.py", []),
        ("usefixtures = veth", "test_it.py", []),
        ("", "package/test_it.py", ["--pyargs", "package"]),
        ("", "package/test_it.py", ["--pyargs", "package.test_it"]),
    ],
)
def test_the_search_goes_where_the_settings_of_pytest_lead(
    project: Project, settings: str, file: str, arguments: list[str]
) -> None:
    project.write(f"[pytest]\n{settings}\n", "pytest.ini")
    if "package" in file:
        project.write("", "package/__init__.py")
    source = USES_OURS.replace("test_it", "it_holds") if "functions" in settings else USES_OURS
    project.write(source.replace("(veth)", "()") if "usefixtures" in settings else source, file)
    result = project.run(*arguments)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["netns: isolated in network and mount namespaces (* veth)*"])
    assert not is_at_home(project)


@pytest.mark.parametrize("kind", ["a pipe", "a link to a pipe", "a link to a device without an end"])
def test_what_only_has_the_name_of_a_test_file_is_not_read(project: Project, kind: str) -> None:
    os.mkfifo(project.path / "pipe")
    odd = project.path / "tests" / "test_odd.py"
    odd.parent.mkdir()
    if kind == "a pipe":
        os.mkfifo(odd)
    else:
        odd.symlink_to("../pipe" if kind == "a link to a pipe" else "/dev/zero")
    project.write("def test_it(veth): pass\n", "tests/test_real.py")
    # A program that read the endless device to its end would soon run out of memory.
    result = project.run(before=["prlimit", f"--as={2 << 30}"])
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["netns: isolated in * (tests/test_real.py uses veth)*"])


def test_a_file_that_is_too_large_is_not_searched(project: Project) -> None:
    project.write("def test_it(veth): pass\n" + "#" * (1 << 20))
    project.run().stdout.fnmatch_lines(["netns: not isolated (no test uses it)*"])


FORBIDDING = ["unshare", "-Ur", "sh", "-c", 'echo 0 >/proc/sys/user/max_user_namespaces; exec "$@"', "sh"]


def test_a_worker_of_xdist_says_what_really_is_in_the_way(project: Project) -> None:
    project.write(USES_OURS)
    result = project.run("-n", "1", "-rs", before=[*FORBIDDING, *unprivileged()])
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*sysctl user.max_user_namespaces=10000 allows them"])
