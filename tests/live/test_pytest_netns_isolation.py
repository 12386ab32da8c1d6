"""Where the plugin runs the tests: on the host, or in their own namespaces, as root and as other users."""

from __future__ import annotations

import os

import pytest

from .plugin import Project, unprivileged

pytestmark = pytest.mark.slow

WHERE = """
import os, socket
NET, MOUNT, USER = (os.readlink(f"/proc/thread-self/ns/{kind}") for kind in ("net", "mnt", "user"))
"""
USES_IT = (
    WHERE
    + """
def test_it(veth):
    a, b = veth
    links = [name for _, name in socket.if_nameindex()]
    with open("where", "w") as file:
        print(NET, MOUNT, USER, *links, file=file)
    assert b.call(socket.if_nameindex)
"""
)
USES_IT_NOT = (
    WHERE
    + """
def test_it():
    with open("where", "w") as file:
        print(NET, MOUNT, USER, file=file)
"""
)


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    return Project(pytester)


def where(project: Project) -> list[str]:
    return (project.path / "where").read_text().split()


def here() -> list[str]:
    return [os.readlink(f"/proc/thread-self/ns/{kind}") for kind in ("net", "mnt", "user")]


def test_tests_that_use_it_run_in_namespaces_of_their_own(project: Project) -> None:
    project.write(USES_IT)
    project.run().assert_outcomes(passed=1)
    net, mount, user, *links = where(project)
    assert net != here()[0]
    assert mount != here()[1]
    assert user == here()[2]
    assert links == ["lo"]


def test_tests_that_do_not_use_it_run_where_they_always_did(project: Project) -> None:
    project.write(USES_IT_NOT)
    result = project.run(before=unprivileged())
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["netns: not isolated (no test uses it)*"])
    assert where(project) == here()


def test_never_leaves_root_on_the_host_and_the_fixtures_work(project: Project) -> None:
    project.write(USES_IT)
    project.run("--netns-isolate=never").assert_outcomes(passed=1)
    assert where(project)[:3] == here()


def test_always_does_it_for_tests_that_do_not_use_it(project: Project) -> None:
    project.write(USES_IT_NOT)
    project.run("--netns-isolate=always").assert_outcomes(passed=1)
    assert where(project)[0] != here()[0]


def test_an_ordinary_user_gets_a_user_namespace(project: Project) -> None:
    project.write(USES_IT)
    result = project.run(before=unprivileged())
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["netns: isolated in user, network and mount namespaces (test_it.py uses veth)*"])
    assert not set(where(project)[:3]) & set(here())


def test_never_skips_the_tests_of_an_ordinary_user_and_says_what_would_help(project: Project) -> None:
    project.write(USES_IT)
    result = project.run("--netns-isolate=never", "-rs", before=unprivileged())
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*an ordinary user needs a user namespace: --netns-isolate=always"])


@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["alone", "xdist"])
def test_temporary_directories_are_those_of_the_user_whatever_the_environment_says(
    project: Project, workers: list[str]
) -> None:
    project.write("import getpass\ndef test_it(netns, tmp_path):\n    assert getpass.getuser() == 'user1234'\n")
    somebody = ["unshare", "--user", "--map-user=1234", "--map-group=1234"]
    nameless = ["env", "-u", "USER", "-u", "LOGNAME", "-u", "LNAME", "-u", "USERNAME"]
    project.run(*workers, before=[*somebody, *nameless]).assert_outcomes(passed=1)


def test_root_without_cap_net_admin_is_as_anybody_else(project: Project) -> None:
    project.write(USES_IT)
    before = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-all"]
    result = project.run(before=before)
    result.assert_outcomes(passed=1)
    assert where(project)[0] != here()[0]


FORBIDDING = ["unshare", "-Ur", "sh", "-c", 'echo 0 >/proc/sys/user/max_user_namespaces; exec "$@"', "sh"]


def test_where_the_host_forbids_it_tests_skip_with_the_sysctl_that_allows_it(project: Project) -> None:
    project.write(USES_IT + USES_IT_NOT.replace("test_it", "test_another"))
    result = project.run("-rs", before=[*FORBIDDING, *unprivileged()])
    result.assert_outcomes(skipped=1, passed=1)
    result.stdout.fnmatch_lines(["SKIPPED*sysctl user.max_user_namespaces=10000 allows them"])


def test_always_is_a_usage_error_where_the_host_forbids_it(project: Project) -> None:
    project.write(USES_IT)
    result = project.run("--netns-isolate=always", before=[*FORBIDDING, *unprivileged()])
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --netns-isolate=always: *user.max_user_namespaces=10000*"])


def test_threads_that_run_already_are_named_with_the_way_out(project: Project) -> None:
    project.write(
        "import threading\nthreading.Thread(target=threading.Event().wait, name='tracer', daemon=True).start()",
        "early.py",
    )
    project.write(USES_IT)
    result = project.run("-p", "early", "-rs", before=unprivileged())
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(
        ["SKIPPED*threads are running already (tracer)*unshare --user --map-root-user --net --mount*"]
    )


def test_the_way_out_for_debuggers_works(project: Project) -> None:
    project.write("import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()", "early.py")
    project.write(USES_IT)
    out = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
    result = project.run("-p", "early", before=unprivileged(*out))
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("privileged", [True, False], ids=["root", "anybody"])
def test_workers_of_xdist_have_namespaces_of_their_own(project: Project, privileged: bool) -> None:
    project.write(
        WHERE
        + """
import pytest
@pytest.mark.parametrize("number", range(8))
def test_it(topology, number, worker_id):
    net = topology("a -- b")
    assert net["a"].call(socket.if_nameindex)
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    with open(f"where-{worker_id}", "w") as file:
        print(NET, MOUNT, USER, file=file)
"""
    )
    # By default they share the network of the process that has started them, as plugins and tests expect.
    options = ["-n", "2", "--netns-workers=own"]
    project.run(*options, before=None if privileged else unprivileged()).assert_outcomes(passed=8)
    first, second = ((project.path / f"where-gw{number}").read_text().split() for number in (0, 1))
    assert len({first[0], second[0], here()[0]}) == 3
    assert len({first[1], second[1], here()[1]}) == 3
    assert first[2] == second[2]
    assert (first[2] == here()[2]) == privileged


def test_workers_stay_on_the_host_where_no_test_uses_it(project: Project) -> None:
    project.write(USES_IT_NOT)
    project.run("-n", "1").assert_outcomes(passed=1)
    assert where(project) == here()


@pytest.mark.parametrize(
    "source",
    [
        "def test_it(request):\n    assert request.getfixturevalue('veth')\n",
        "import pytest\n@pytest.mark.usefixtures('veth')\ndef test_it():\n    pass\n",
        "import typing\ndef test_it(\n    veth: typing.Any,\n    tmp_path,\n) -> None:\n    pass\n",
        "class TestIt:\n    def test_it(self, module_topology): pass\n",
        "import pytest\n@pytest.mark.netns\ndef test_it():\n    pass\n",
    ],
)
def test_every_way_of_using_it_is_seen_before_collection(project: Project, source: str) -> None:
    project.write(source)
    result = project.run(before=unprivileged())
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["netns: isolated in user*"])


def test_a_fixture_in_a_conftest_counts_also_of_a_directory_above(project: Project) -> None:
    project.write("import pytest\n@pytest.fixture\ndef net(topology):\n    return topology('a -- b')\n", "conftest.py")
    project.write("def test_it(net): pass\n", "deep/er/test_it.py")
    result = project.run("deep/er/test_it.py::test_it", before=unprivileged())
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["netns: isolated in user* (conftest.py uses topology)*"])


def test_what_will_not_be_collected_does_not_count(project: Project) -> None:
    project.write(USES_IT, "build/test_it.py")
    project.write(USES_IT, "env/lib/test_it.py")
    project.write("", "env/pyvenv.cfg")
    project.write(USES_IT, "notes.py")
    project.write(USES_IT_NOT + "\n# netns, veth and topology are only talked about: veth(topology)\n")
    result = project.run()
    result.assert_outcomes(passed=1)
    assert where(project) == here()


def test_coverage_measures_what_runs_in_the_tests(project: Project) -> None:
    project.write("def seven():\n    return 7\n", "mine.py")
    project.write("import mine\ndef test_it(netns):\n    assert netns.call(mine.seven) == 7\n")
    environment = ["env", "-u", "COVERAGE_FILE", f"PYTHONPATH={project.path}"]
    told = project.run("--cov=mine", "--cov-report=term", before=unprivileged(*environment))
    told.stdout.fnmatch_lines(["mine.py*100%"])


def test_a_run_by_coverage_is_isolated_too(project: Project) -> None:
    project.write(USES_IT)
    before = unprivileged("env", "-u", "COVERAGE_FILE")
    project.run(module="coverage run --source=. -m pytest", before=before).assert_outcomes(passed=1)
    assert where(project)[0] != here()[0]
    assert (project.path / ".coverage").exists()


def test_pdb_works_and_stands_in_the_test(project: Project) -> None:
    project.write("def test_it(netns):\n    answer = 41\n    assert answer == 42\n")
    result = project.run("--pdb", "-s", before=unprivileged(), stdin="p answer + 59\nq\n")
    result.stdout.fnmatch_lines(["*(Pdb) 100"])


def test_a_run_within_a_run_stays_where_it_is(pytester: pytest.Pytester) -> None:
    before = here()
    pytester.makepyfile("def test_it(veth): pass\n")
    quiet = ["-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:asyncio"]
    pytester.runpytest_inprocess(*quiet).assert_outcomes(passed=1)
    assert here() == before
