"""The leak watch and processes that a test leaves in its nodes; each test here runs a project in a separate process."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.live.leaks import Project, leaks, project_of, said

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
