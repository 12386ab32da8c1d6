"""The leak watch and what outlives one test; each test here runs a project in a separate process."""

from __future__ import annotations

import pytest

from tests.live.leaks import Project, failed_teardowns, leaks, project_of

pytestmark = pytest.mark.slow


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    return project_of(pytester)


def test_a_link_left_in_a_node_of_wider_scope_is_told_of_and_gone_for_the_next(project: Project) -> None:
    result = project("""
        @pytest.fixture(scope="module")
        def furnished(module_netns):
            with module_netns:
                add_link("br1")
            return module_netns

        def test_leaves(furnished):
            with furnished:
                add_link("br2")

        def test_next(furnished):
            with furnished:
                assert names() == {"br1"}
    """)
    result.assert_outcomes(passed=2, errors=1)
    (line,) = leaks(result)
    assert line.startswith("link br2 ")
    assert " node " in line


@pytest.mark.parametrize("scope", ["function", "class"])
def test_a_link_of_wider_scope_that_has_been_renamed_is_neither_a_leak_nor_deleted(
    project: Project, scope: str
) -> None:
    result = project(f"""
        @pytest.fixture(scope="module")
        def net(module_topology):
            return module_topology("a -- b")

        @pytest.fixture(scope="{scope}")
        def renamed(net):
            net["a"].set("eth0", new_name="wan")
            add_link("br0")
            subprocess.run(["ip", "link", "set", "br0", "name", "br1"], check=True)
            yield
            subprocess.run(["ip", "link", "delete", "br1"], check=True)

        def test_renames(renamed, net):
            net["b"].set("eth0", new_name="lan")
            assert net["a"].ping(net["b"])

        def test_next(net):
            assert net["a"].ping(net["b"])
            assert [link.name for node in net.values() for link in node.links()] == ["lo", "wan", "lo", "lan"]

        def test_leaves(net):
            net["a"].run(["ip", "link", "add", "br2", "type", "bridge"])

        def test_last(net):
            assert [link.name for link in net["a"].links()] == ["lo", "wan"]
    """)
    result.assert_outcomes(passed=4, errors=1)
    (line,) = leaks(result)
    assert line.startswith("link br2 in node a: ")


def test_a_link_of_wider_scope_that_has_been_made_anew_is_neither_a_leak_nor_deleted(project: Project) -> None:
    result = project("""
        @pytest.fixture(scope="module")
        def net(module_topology):
            return module_topology("a -- b")

        def test_replaces(net, netns_session):
            net["a"].run(["ip", "link", "delete", "eth0"])
            a, b = (End("eth0", node.netns, addresses=[f"{node.ipv4}/24"]) for node in net.values())
            netns_session.create(Veth(a, b))
            assert net["a"].ping(net["b"])

        def test_next(net):
            assert net["a"].ping(net["b"])
            net["a"].set("eth0", new_name="wan")
            net["a"].run(["ip", "link", "add", "eth0", "type", "bridge"])

        def test_last(net):
            assert net["a"].ping(net["b"])
    """)
    result.assert_outcomes(passed=3, errors=1)
    (line,) = leaks(result)
    assert line.startswith("link eth0 in node a: ")


def test_a_link_that_a_fixture_of_wider_scope_has_left_is_told_of_after_its_teardown(project: Project) -> None:
    result = project("""
        @pytest.fixture(scope="class")
        def linked():
            add_link("br1")

        class TestIt:
            def test_one(self, linked, netns):
                pass

            def test_two(self, linked, netns):
                assert names() == {"br1"}

        def test_next(netns):
            assert names() == set()
    """)
    result.assert_outcomes(passed=3, errors=1)
    assert failed_teardowns(result) == ["TestIt.test_two"]
    (line,) = leaks(result)
    assert line.startswith("link br1 ")
    assert "(left by the fixture linked)" in line


def test_a_topology_of_wider_scope_that_a_test_asks_for_is_no_leak(project: Project) -> None:
    result = project("""
        def test_asks(module_topology):
            net = module_topology("r1 -- r2")
            net["r1"].run(["true"])

        def test_next(netns):
            pass
    """)
    result.assert_outcomes(passed=2)


def test_a_topology_may_outlive_the_fixture_that_asked_for_it(project: Project) -> None:
    result = project("""
        @pytest.fixture(scope="class")
        def net(session_topology):
            return session_topology("r1 -- r2")

        class TestNet:
            def test_it(self, net):
                pass

        def test_next(session_netns):
            pass
    """)
    result.assert_outcomes(passed=2)


def test_a_pair_between_home_and_a_node_ends_with_the_node(project: Project) -> None:
    result = project("""
        @pytest.mark.parametrize("number", range(20))
        def test_connects_home(netns, netns_session, number):
            assert names() == set()
            netns_session.create(Veth(End("up"), End("down", netns.netns)))
    """)
    result.assert_outcomes(passed=20)


def test_a_pair_between_home_and_a_node_that_stays_is_a_leak_of_two_links(project: Project) -> None:
    result = project("""
        def test_connects_home(module_netns, netns_session):
            netns_session.create(Veth(End("up"), End("down", module_netns.netns)))

        def test_next(module_netns):
            assert names() == set()
    """)
    result.assert_outcomes(passed=2, errors=1)
    assert sorted(line.split()[1] for line in leaks(result)) == ["down", "up"]


def test_what_a_fixture_of_wider_scope_made_is_its_own_until_it_has_ended(project: Project) -> None:
    result = project("""
        @pytest.fixture(scope="module")
        def tidy(module_netns):
            stop = threading.Event()
            waiting = module_netns.submit(stop.wait)
            ns.Netns.create("tidy").close()
            add_link("br1")
            yield
            subprocess.run(["ip", "link", "del", "br1"], check=True)
            ns.remove("tidy")
            stop.set()
            waiting.result()

        @pytest.fixture(scope="class")
        def untidy():
            ns.Netns.create("untidy").close()
            yield
            ns.Netns.create("worse").close()

        class TestThings:
            def test_one(self, netns, tidy, untidy):
                assert sorted(os.listdir("/run/netns")) == ["tidy", "untidy"]

            def test_two(self, netns, tidy, untidy):
                pass

        def test_three(netns, tidy):
            assert os.listdir("/run/netns") == ["tidy"]
    """)
    result.assert_outcomes(passed=3, errors=1)
    assert failed_teardowns(result) == ["TestThings.test_two"]
    untidy, worse = leaks(result)
    assert untidy.startswith("namespace untidy, ")
    assert " fixture untidy)" in untidy
    assert worse.startswith("namespace worse, ")
    assert "(" not in worse.split(":")[0]  # of nobody but the test


def test_a_socket_of_a_topology_that_is_up_is_told_of_when_that_ends_with_its_test(project: Project) -> None:
    result = project("""
        def test_leaves(module_netns):
            KEPT.append(module_netns.socket())

        def test_between(module_netns):
            pass

        def test_not_watched():
            pass
    """)
    result.assert_outcomes(passed=3, errors=1)
    assert failed_teardowns(result) == ["test_not_watched"]
    (line,) = leaks(result)
    assert line.startswith("socket ")
    assert "::test_leaves): " in line


@pytest.mark.parametrize("between", ["def test_next(net): pass", "def test_not_watched(): pass"])
def test_what_a_plugin_keeps_of_a_failed_test_is_no_leak_of_the_last_test_of_its_module(
    project: Project, pytester: pytest.Pytester, between: str
) -> None:
    # pytest-rerunfailures keeps the exceptions of all tests.
    pytester.makeconftest("""
        KEPT = []

        def pytest_runtest_makereport(call):
            KEPT.append(call.excinfo)
    """)
    result = project(f"""
        @pytest.fixture(scope="module")
        def net(module_netns):
            return module_netns

        def test_fails(net):
            local, kept = net.socket(), net.socket(socket.AF_INET6)
            KEPT.append(kept)
            assert local.fileno() < 0

        {between}
    """)
    result.assert_outcomes(passed=1, failed=1, errors=1)
    (line,) = leaks(result)
    assert "AF_INET6" in line
    assert "::test_fails)" in line
