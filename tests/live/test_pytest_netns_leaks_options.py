"""Which tests the leak watch watches, where, and the consequences of a leak."""

from __future__ import annotations

import textwrap

import pytest

from tests.capabilities import ORDINARY
from tests.live.leaks import OPTIONS, PREAMBLE, Project, leaks, project_of

pytestmark = pytest.mark.slow


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    return project_of(pytester)


def test_only_tests_that_use_the_plugin_are_watched(project: Project) -> None:
    result = project("""
        def test_does_not_use_it():
            add_link("br1")

        @pytest.mark.netns
        def test_is_marked():
            add_link("br2")

        def test_asks_at_last(request):
            request.getfixturevalue("netns")
            add_link("br3")

        def test_uses_it(netns):
            assert names() == {"br1"}
    """)
    result.assert_outcomes(passed=4, errors=2)
    assert [line.split()[1] for line in leaks(result)] == ["br2", "br3"]


def test_a_project_may_ask_for_all_fixtures_at_last(project: Project) -> None:
    result = project("""
        def test_asks(request):
            request.getfixturevalue("netns")
            add_link("br1")

        def test_does_not():
            assert names() == set()
    """)
    result.assert_outcomes(passed=2, errors=1)


@pytest.mark.parametrize("how", ["option", "ini", "marker"])
def test_leaks_can_be_warned_of_and_are_then_left(project: Project, pytester: pytest.Pytester, how: str) -> None:
    if how == "ini":
        pytester.makeini("[pytest]\nnetns_leaks = warn")
    mark = '@pytest.mark.netns(leaks="warn")' if how == "marker" else ""
    result = project(
        f"""
        {mark}
        def test_leaves(netns):
            add_link("br7")

        def test_next(netns):
            assert names() == {{"br7"}}
        """,
        *(["--netns-leaks=warn"] if how == "option" else []),
    )
    result.assert_outcomes(passed=2, warnings=1)
    result.stdout.fnmatch_lines(["*NetnsLeakWarning: left behind: link br7 * home *"])


def test_the_warning_can_be_made_an_error(project: Project) -> None:
    result = project(
        """
        def test_leaves(netns):
            add_link("br7")
        """,
        "--netns-leaks=warn",
        "-Werror::vethlib.pytest_netns.NetnsLeakWarning",
    )
    result.assert_outcomes(passed=1, errors=1)


@pytest.mark.parametrize("how", ["option", "ini", "marker"])
def test_the_watch_can_be_off(project: Project, pytester: pytest.Pytester, how: str) -> None:
    if how == "ini":
        pytester.makeini("[pytest]\nnetns_leaks = off")
    mark = '@pytest.mark.netns(leaks="off")' if how == "marker" else ""
    result = project(
        f"""
        {mark}
        def test_leaves(netns):
            add_link("br7")

        def test_next(netns):
            assert names() == {{"br7"}}
        """,
        *(["--netns-leaks=off"] if how == "option" else []),
    )
    result.assert_outcomes(passed=2)


def test_the_marker_is_stronger_than_the_option(project: Project) -> None:
    result = project(
        """
        @pytest.mark.netns(leaks="fail")
        def test_leaves(netns):
            add_link("br7")
        """,
        "--netns-leaks=off",
    )
    result.assert_outcomes(passed=1, errors=1)


def test_at_a_home_that_is_shared_with_others_links_and_names_may_be_theirs(project: Project) -> None:
    # What runs this test has a home of its own, but nothing has told the project that.
    result = project(
        """
        def test_leaves_what_others_could_have_made(netns):
            add_link("br7")
            ns.Netns.create("blue").close()

        def test_leaves_what_it_alone_can_have(netns):
            subprocess.run(["ip", "link", "del", "br7"], check=True)
            ns.remove("blue")
            KEPT.append(netns.socket())
        """,
        "--netns-isolate=never",
    )
    result.assert_outcomes(passed=2, errors=1)
    (line,) = leaks(result)
    assert line.startswith("socket ")


def test_an_ordinary_user_is_told_the_same(project: Project, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        PREAMBLE
        + textwrap.dedent("""
        def test_leaves(netns, module_netns):
            add_link("br7")
            ns.Netns.create("blue").close()
            KEPT.append(netns.socket())
            with netns:
                subprocess.run(["sh", "-c", "setsid sleep 61 >/dev/null 2>&1 &"], check=True)
            with module_netns:
                add_link("br8")

        def test_next(netns):
            assert names() == set()
    """)
    )
    result = pytester.run(*ORDINARY, *pytester._getpytestargs(), *OPTIONS)
    result.assert_outcomes(passed=2, errors=1)
    assert [line.split()[0] for line in leaks(result)] == ["link", "link", "namespace", "process", "socket"]


def test_a_worker_of_xdist_watches_what_its_own_tests_leave(project: Project) -> None:
    pytest.importorskip("xdist")
    result = project(
        """
        @pytest.mark.parametrize("number", range(6))
        def test_leaves(netns, number):
            assert names() == set()
            if number % 2:
                add_link("br7")
        """,
        "-n2",
        "--netns-workers=own",  # where they share their network, a link at home may be another worker's
    )
    result.assert_outcomes(passed=6, errors=3)
    assert {tuple(line.split()[:2]) for line in leaks(result)} == {("link", "br7")}
