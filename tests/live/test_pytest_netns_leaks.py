"""The leak watch, as projects that use the plugin see it: each test here runs a project in a separate process."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.live.leaks import Project, failed_teardowns, leaks, project_of, said
from vethlib.pytest_netns.leaks.watched_links import WatchedLinks
from vethlib.topology import Topology

pytestmark = pytest.mark.slow


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    return project_of(pytester)


@pytest.fixture
def pids(pytester: pytest.Pytester) -> Iterator[Callable[[], list[int]]]:
    """The processes that the project has written into the file pids; those that are left are ended."""

    def alive() -> list[int]:
        file = pytester.path / "pids"
        found = [int(line) for line in file.read_text().split()] if file.exists() else []
        return [pid for pid in found if os.path.exists(f"/proc/{pid}/ns/net")]

    yield alive
    for pid in alive():
        os.kill(pid, signal.SIGKILL)


def test_a_test_that_leaves_nothing_passes(project: Project) -> None:
    result = project("""
        def test_all_sorts_of_things_that_end(veth):
            a, b = veth
            with b.socket() as server, a.socket() as client:
                server.bind((b.ipv4, 7))
                server.listen()
                client.connect((b.ipv4, 7))
            with a:
                add_link("br7")
            a.run(["true"])
            a.start(["sleep", "60"])
            assert b.call(socket.if_nameindex)
            add_link("br8")
            subprocess.run(["ip", "link", "del", "br8"], check=True)
            with Netns.anonymous() as other, other.entered():
                add_link("br9")
            ns.Netns.create("blue").close()
            ns.remove("blue")

        def test_at_home():
            assert names() == set()
    """)
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize("fixture", ["netns", "topology"])
def test_a_daemon_that_a_program_of_a_node_leaves_in_the_background_is_no_leak(
    project: Project, pids: Callable[[], list[int]], fixture: str
) -> None:
    result = project(f"""
        def test_daemons({fixture}):
            node = {"topology('node a')['a']" if fixture == "topology" else fixture}
            daemon = "setsid sleep 600 <&- >&- 2>&- & echo $! >>pids"
            node.run(["sh", "-c", daemon])
            node.start(["sh", "-c", daemon]).wait()
            node.start(["sh", "-c", "sleep 600 & echo $! >>pids"]).wait()
            node.run(["ip", "netns", "add", "inner"])
            for prefix in "unshare --mount", "unshare --mount --net", "ip netns exec inner":
                shell = "setsid " + prefix + " sh -c 'echo $$ >>pids; exec sleep 600' <&- >&- 2>&- &"
                node.run(["sh", "-c", shell])
            while len(open("pids").readlines()) < 6:
                time.sleep(0.01)
    """)
    result.assert_outcomes(passed=1)
    assert not pids()


def test_a_link_with_a_hundred_names_that_is_left_is_found_and_so_are_those_after_it(project: Project) -> None:
    """if_nameindex() of glibc leaves them out."""
    result = project("""
        def test_leaves(netns):
            for link in ("br7", "br8"):
                add_link(link)
                batch = "".join(f"link property add dev {link} altname {link}{n:03}{'x' * 100}\\n" for n in range(100))
                subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)

        def test_next(netns):
            assert names() == set()
    """)
    result.assert_outcomes(passed=2, errors=1)
    assert len(leaks(result)) == 2


def test_a_link_left_at_home_fails_its_test_and_is_gone_for_the_next(project: Project) -> None:
    result = project("""
        def test_leaves(netns):
            add_link("br7")

        def test_next(netns):
            assert names() == set()
    """)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_leaves*", "left behind: link br7 * home *"])


def test_a_named_namespace_that_is_left_is_told_of_and_gone_for_the_next(project: Project) -> None:
    result = project("""
        def test_leaves(netns):
            ns.Netns.create("blue").close()

        def test_next(netns):
            assert os.listdir("/run/netns") == []
    """)
    result.assert_outcomes(passed=2, errors=1)
    (line,) = leaks(result)
    assert line.startswith("namespace blue,")


def test_what_keeps_the_namespace_of_a_node_is_told_of_with_the_node(project: Project) -> None:
    result = project("""
        def test_leaves_a_descriptor(veth):
            KEPT.append(Netns.open(veth.a.netns))

        def test_leaves_a_socket(veth):
            KEPT.append(veth.b.socket(socket.AF_INET, socket.SOCK_DGRAM))
            KEPT[-1].bind(("127.0.0.1", 53))

        def test_leaves_neither(veth):
            with Netns.open(veth.a.netns), veth.b.socket():
                pass
    """)
    result.assert_outcomes(passed=3, errors=2)
    descriptor, sock = leaks(result)
    assert descriptor.startswith("descriptor ")
    assert " node a: " in descriptor
    assert sock.startswith("socket ")
    assert "AF_INET, SOCK_DGRAM, " in sock
    assert "('127.0.0.1', 53)" in sock
    assert " node b: " in sock


def test_a_namespace_that_the_test_made_itself_is_no_exception(project: Project) -> None:
    result = project("""
        from vethlib.topology import Topology

        def test_leaves_a_topology(netns):
            KEPT.append(Topology.build("left -- right"))

        def test_leaves_a_namespace(netns):
            KEPT.append(Netns.anonymous())
    """)
    result.assert_outcomes(passed=2, errors=2)
    left, right, anonymous = leaks(result)
    assert " node left: " in left
    assert " node right: " in right
    assert re.search(r" namespace 4\d+: ", anonymous)  # nobody has given it a name but its inode number


def test_what_only_a_reference_cycle_keeps_is_no_leak(project: Project) -> None:
    result = project("""
        class Client:
            def __init__(self, socket):
                self.socket, self.me = socket, self

        @pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
        def test_drops_a_cycle(netns):
            Client(netns.socket())
    """)
    result.assert_outcomes(passed=1)


def test_what_the_traceback_of_a_failed_test_keeps_is_no_leak_but_what_it_left_besides_is(project: Project) -> None:
    result = project("""
        def test_fails(netns):
            local, kept = netns.socket(), netns.socket(socket.AF_INET6)
            KEPT.append(kept)
            assert local.fileno() < 0

        def test_next(netns):
            pass

        def test_last(netns):
            pass
    """)
    result.assert_outcomes(passed=2, failed=1, errors=1)
    assert failed_teardowns(result) == ["test_next"]
    (line,) = leaks(result)
    assert "AF_INET6" in line
    assert "::test_fails)" in line


@pytest.mark.parametrize("outcome", ["pytest.fail", "pytest.skip", "pytest.xfail", "unittest.SkipTest"])
@pytest.mark.parametrize("place", ["test", "fixture"])
def test_what_the_frames_of_a_test_that_ends_early_hold_is_no_leak_but_what_it_left_besides_is(
    project: Project, outcome: str, place: str
) -> None:
    end = f"raise {outcome}('early')" if "Skip" in outcome else f"{outcome}('early')"
    result = project(f"""
        import unittest

        def leave(netns):
            local, kept = netns.socket(), netns.socket(socket.AF_INET6)
            KEPT.append(kept)
            {end}

        @pytest.fixture
        def fixture(netns):
            leave(netns)

        @pytest.fixture
        def test():
            pass

        def test_ends_early({place}, netns):
            leave(netns)

        def test_next(netns):
            pass

        def test_last(netns):
            pass
    """)
    assert failed_teardowns(result) == ["test_next"]
    (line,) = leaks(result)
    assert "AF_INET6" in line
    assert "::test_ends_early)" in line


@pytest.mark.parametrize("end", ["assert False", "pytest.skip('early')"])
def test_where_warnings_are_errors_the_next_test_gets_none_for_what_such_frames_held(
    project: Project, end: str
) -> None:
    result = project(
        f"""
        def test_ends_early(netns):
            local = netns.socket()
            {end}

        def test_next(netns):
            pass

        def test_last(netns):
            pass
        """,
        "-Werror",
    )
    result.assert_outcomes(passed=2, **{"failed" if "assert" in end else "skipped": 1})


def test_a_thread_left_in_a_node_is_told_of_by_name_and_one_that_is_about_to_end_is_not(project: Project) -> None:
    result = project("""
        GO = threading.Event()

        def wait_for_all():
            GO.wait()

        def test_leaves(netns):
            netns.submit(wait_for_all)

        def test_waits(netns):
            netns.submit(time.sleep, 0.05)

        def test_lets_go(netns):
            GO.set()
    """)
    result.assert_outcomes(passed=3, errors=1)
    (line,) = leaks(result)
    assert line.startswith("thread ")
    assert "wait_for_all'" in line
    assert " node " in line


def test_the_thread_of_the_tests_is_brought_home_before_anything_else_happens(project: Project) -> None:
    result = project("""
        def here():
            return os.stat("/proc/thread-self/ns/net").st_ino

        HOME = []

        @pytest.fixture
        def at_home():
            yield HOME.append(here())
            assert here() == HOME[0]

        def test_stays_in_a_node(at_home, netns):
            netns.__enter__()

        @pytest.fixture
        def inside(netns):
            netns.__enter__()

        def test_of_a_fixture_that_stays(inside):
            assert here() != HOME[0]

        def test_next(netns):
            assert here() == HOME[0]
    """)
    result.assert_outcomes(passed=3, errors=2)
    result.stdout.no_fnmatch_line("E*AssertionError*")
    result.stdout.no_fnmatch_line("E*assert*")
    assert [line.split()[:2] for line in leaks(result)] == [["the", "thread"]] * 2


def test_a_fixture_may_have_its_test_run_in_a_node(project: Project) -> None:
    result = project("""
        @pytest.fixture(params=["each", "all"])
        def inside(request):
            return request.getfixturevalue(request.param)

        @pytest.fixture
        def each(netns):
            with netns:
                yield netns

        @pytest.fixture(scope="module")
        def all(module_netns):
            with module_netns:
                yield module_netns

        @pytest.mark.parametrize("number", range(2))
        def test_is_inside(inside, netns, number):
            assert os.stat("/proc/thread-self/ns/net").st_ino == inside.netns.identity[1]
    """)
    result.assert_outcomes(passed=4)


def test_processes_left_in_a_node_are_killed_and_told_of(project: Project, pids: Callable[[], list[int]]) -> None:
    result = project("""
        def test_leaves_a_child(netns):
            with netns:
                KEPT.append(subprocess.Popen(["sleep", "61"]))
            with open("pids", "a") as file:
                print(KEPT[-1].pid, file=file)

        def test_leaves_a_daemon(netns):
            with netns:
                subprocess.run(["sh", "-c", "setsid sleep 62 >/dev/null 2>&1 & echo $! >>pids"], check=True)

        def test_starts(netns):
            netns.start(["sleep", "63"])

        def test_ends_what_it_has_begun(netns):
            with netns:
                process = subprocess.Popen(["sleep", "64"])
            process.terminate()
            KEPT.append(process)
    """)
    result.assert_outcomes(passed=4, errors=2)
    child, daemon = leaks(result)
    for line, command in ((child, "(sleep 61)"), (daemon, "(sleep 62)")):
        assert line.startswith("process ")
        assert command in line
        assert " node " in line
    assert pids() == []


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_helper_processes_of_multiprocessing_are_no_leak_of_the_test_that_is_the_first_to_need_them(
    project: Project, method: str
) -> None:
    result = project(
        f"""
        import multiprocessing

        CONTEXT = multiprocessing.get_context("{method}")

        @pytest.mark.parametrize("number", range(3))
        def test_process(netns, number):
            with netns:
                lock = CONTEXT.Lock()  # a named semaphore, of which the resource tracker knows
                here, there = CONTEXT.Pipe()
                process = CONTEXT.Process(target=tell, args=(there,))
                process.start()
            process.join()
            assert here.recv() == os.fstat(netns.netns.fd).st_ino

        def tell(there):
            there.send(os.stat("/proc/self/ns/net").st_ino)

        def test_leaves_another(netns):
            with netns:
                subprocess.Popen(["sleep", "600"])
        """,
        "-Werror::UserWarning",
    )
    result.assert_outcomes(passed=4, errors=1)
    (line,) = leaks(result)
    assert "(sleep 600)" in line


def test_more_processes_than_the_run_may_have_descriptors_are_killed(
    project: Project, pids: Callable[[], list[int]]
) -> None:
    result = project("""
        import resource

        def test_leaves_children(netns):
            with netns:
                KEPT.extend(subprocess.Popen(["sleep", "65"]) for _ in range(70))
            with open("pids", "a") as file:
                print(*(child.pid for child in KEPT), sep="\\n", file=file)
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    """)
    result.assert_outcomes(passed=1, errors=1)
    assert pids() == []


def test_processes_are_found_although_process_ids_have_wrapped_around(
    project: Project, pids: Callable[[], list[int]]
) -> None:
    result = project("""
        from types import SimpleNamespace
        from vethlib.ns.programs import newer

        hours, clock = 0, time.monotonic
        newer.last_pid = lambda: (1 << 23) + hours  # beyond all ids
        newer.time = SimpleNamespace(monotonic=lambda: clock() + 3600 * hours)

        def test_leaves_a_child(netns):
            global hours
            with netns:
                KEPT.append(subprocess.Popen(["sleep", "61"]))
            with open("pids", "a") as file:
                print(KEPT[-1].pid, file=file)
            hours = 1
    """)
    result.assert_outcomes(passed=1, errors=1)
    (line,) = leaks(result)
    assert "(sleep 61)" in line
    assert pids() == []


@pytest.mark.parametrize(
    "start",
    [
        "netns.wait_for(start)",
        "with ns.entered(netns): start()",
        "with ns.entered(netns.netns): start()",
        "with netns.netns.entered(): start()",
        "ns.run(netns, ['sh', '-c', 'setsid sleep 66 >/dev/null 2>&1 & echo $! >>pids'])",
    ],
)
def test_processes_are_found_however_the_node_was_entered(
    project: Project, pids: Callable[[], list[int]], start: str
) -> None:
    result = project(f"""
        def start():
            KEPT.append(subprocess.Popen(["sleep", "66"]))
            with open("pids", "a") as file:
                print(KEPT[-1].pid, file=file)
            return True

        def test_leaves_a_child(netns):
            {start}
    """)
    result.assert_outcomes(passed=1, errors=1)
    (line,) = leaks(result)
    assert re.search(r"\((setsid )?sleep 66\)", line)  # it may not have come to sleep yet
    assert " node " in line
    assert pids() == []


def test_processes_in_namespaces_that_are_no_node_are_left_alone(
    project: Project, pids: Callable[[], list[int]]
) -> None:
    result = project("""
        def test_starts_one_elsewhere(netns):
            netns.run(["true"])
            with Netns.anonymous() as other, other.entered():
                KEPT.append(subprocess.Popen(["sleep", "65"]))
            with open("pids", "w") as file:
                print(KEPT[-1].pid, file=file)
    """)
    result.assert_outcomes(passed=1)
    assert len(pids()) == 1


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


def test_a_leak_hides_no_failure_of_the_test_and_none_of_its_teardown(project: Project) -> None:
    result = project("""
        def test_fails(netns):
            add_link("br7")
            assert names() == set()

        @pytest.fixture
        def breaks():
            yield
            raise RuntimeError("broken in teardown")

        def test_breaks(netns, breaks):
            add_link("br8")
    """)
    result.assert_outcomes(passed=1, failed=1, errors=2)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_fails*",
            "left behind: link br7 *",
            "*ERROR at teardown of test_breaks*",
            "E*RuntimeError: broken in teardown",
            "*netns leaks*",
            "left behind: link br8 *",
            "*= FAILURES =*",
            "E*assert {'br7'} == set()",
        ]
    )


def test_what_is_kept_on_purpose_is_no_leak(project: Project, pids: Callable[[], list[int]]) -> None:
    result = project(
        """
        def test_fails(netns):
            KEPT.append(netns.socket())
            netns.start(["sleep", "66"])
            netns.run(["sh", "-c", "setsid sleep 67 >/dev/null 2>&1 & echo $! >pids"])
            assert names() == None

        def test_next(netns):
            pass
        """,
        "--netns-keep",
    )
    (end,) = set(re.findall(r"end it: +kill (\d+)", said(result)))
    try:
        result.assert_outcomes(passed=1, failed=1)
        assert len(pids()) == 1
    finally:
        os.kill(int(end), signal.SIGTERM)


def test_more_than_can_be_read_is_only_counted(project: Project) -> None:
    result = project("""
        def test_leaves(netns):
            for number in range(100):
                add_link(f"br{number}")
    """)
    assert len(leaks(result)) == 13
    assert leaks(result)[-1].startswith("88 ")


def test_a_test_that_closes_every_descriptor_does_not_hang_the_run(project: Project) -> None:
    result = project(
        """
        def test_closes(netns):
            os.closerange(3, 200)
    """,
        "-s",
        "-p",
        "no:logging",
    )
    assert "Bad file descriptor" in result.stdout.str()


@pytest.mark.parametrize("reuse", ["", "file", "socket", "pipe", "netlink"])
def test_links_are_listed_again_if_a_socket_was_closed_and_its_descriptor_may_be_in_use(reuse: str) -> None:
    with Topology.build("a -- b") as net, ExitStack() as opened:
        places: dict[tuple[int, int] | None, int] = {node.netns.identity: node.netns.fd for node in net.values()}
        links = WatchedLinks()
        opened.callback(links.close)
        links.look(places)
        for fd in links.filenos():
            os.close(fd)
        mine: list[int] = []
        if reuse == "pipe":
            mine = list(os.pipe())
            os.write(mine[1], b"mine")
        elif reuse == "file":
            mine = [os.open("/proc/self/status", os.O_RDONLY), os.open("/proc/self/status", os.O_RDONLY)]
        elif reuse == "socket":
            mine = [one.detach() for one in socket.socketpair()]
            os.write(mine[1], b"mine")
        elif reuse == "netlink":
            mine = [socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).detach() for _ in "ab"]
        for fd in mine:
            opened.callback(os.close, fd)
        net["a"].run(["ip", "link", "add", "new", "type", "bridge"])
        assert ("a", "new") in {
            (next(name for name, node in net.items() if node.netns.identity == link.netns), link.text)
            for link in links.look(places)
        }
        net["b"].run(["ip", "link", "add", "newer", "type", "bridge"])
        assert "newer" in {link.text for link in links.look(places)}
        if reuse in ("pipe", "socket"):
            assert os.read(mine[0], 10) == b"mine"
        links.close()
        assert all(os.path.exists(f"/proc/self/fd/{fd}") for fd in mine)
