"""The leak watch, as projects that use the plugin see it: each test here runs a project in a separate process."""

from __future__ import annotations

import os
import re
import socket
from contextlib import ExitStack

import pytest

from tests.live.leaks import Project, failed_teardowns, leaks, project_of
from vethlib.pytest_netns.leaks.watched_links import WatchedLinks
from vethlib.topology import Topology

pytestmark = pytest.mark.slow


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    return project_of(pytester)


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
