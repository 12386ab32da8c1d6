"""The plugin in workers of pytest-xdist: beside plugins that talk to their controller, and a shared server."""

from __future__ import annotations

import os

import pytest

from .plugin import Project, unprivileged

pytestmark = pytest.mark.slow

USES_IT = "import pytest\n@pytest.mark.parametrize('number', range(4))\ndef test_it(veth, number): pass\n"

# As in the documentation of pytest-xdist: the first worker starts what all of them use.
SHARED_SERVER = """
import fcntl, json, os, socket, threading, time
import pytest

@pytest.fixture(scope="session")
def server(tmp_path_factory):
    file = tmp_path_factory.getbasetemp().parent / "server.json"
    with open(file.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if file.exists():
            return tuple(json.loads(file.read_text()))
        listening = socket.create_server(("127.0.0.1", 0))
        def serve():
            while True:
                listening.accept()[0].close()
        threading.Thread(target=serve, daemon=True).start()
        file.write_text(json.dumps(listening.getsockname()))
        return listening.getsockname()

@pytest.mark.parametrize("number", range(4))
def test_it(veth, server, number, worker_id):
    with open(f"worker-{worker_id}", "a") as file:
        print(number, file=file)
    deadline = time.monotonic() + 30
    while len([name for name in os.listdir() if name.startswith("worker-")]) < 2:
        assert time.monotonic() < deadline, "only one worker has a test"
        time.sleep(0.01)
    socket.create_connection(server, timeout=60).close()
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    return Project(pytester)


@pytest.mark.parametrize(("workers", "before"), [("auto", None), ("own", unprivileged())], ids=["shared", "own"])
def test_a_plugin_whose_workers_talk_to_the_controller_works(
    project: Project, workers: str, before: list[str] | None
) -> None:
    pytest.importorskip("pytest_rerunfailures")
    project.write(USES_IT)
    options = ["-p", "rerunfailures", "-n", "2", f"--netns-workers={workers}"]
    project.run(*options, before=before).assert_outcomes(passed=4)


def test_workers_that_talk_to_the_controller_while_the_session_starts_reach_it(project: Project) -> None:
    project.write(
        """
import os, socket
import pytest

def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.server = socket.create_server(("127.0.0.1", 0))

def pytest_configure_node(node):
    node.workerinput["port"] = node.config.server.getsockname()[1]

def pytest_sessionstart(session):
    if port := getattr(session.config, "workerinput", {}).get("port"):
        socket.create_connection(("127.0.0.1", port), timeout=60).close()
        session.config.reached = True

@pytest.fixture
def reached(request):
    return request.config.reached
""",
        "conftest.py",
    )
    project.write("def test_it(veth, reached):\n    assert reached\n")
    project.run("-n", "1", "--netns-workers=own").assert_outcomes(passed=1)


def test_a_server_that_one_worker_has_started_serves_them_all(project: Project) -> None:
    project.write(SHARED_SERVER)
    project.run("-n", "2", before=unprivileged()).assert_outcomes(passed=4)
    assert {name for name in os.listdir(project.path) if name.startswith("worker-")} == {"worker-gw0", "worker-gw1"}


@pytest.mark.parametrize(
    ("fixture", "option", "is_shared"),
    [
        ("netns_session", "auto", False),
        ("netns_session", "shared", True),
    ],
)
def test_the_network_of_a_worker_is_shared_unless_tests_use_it_themselves(
    project: Project, fixture: str, option: str, is_shared: bool
) -> None:
    project.write(f"""
import os
def where(name):
    with open(name, "w") as file:
        file.write(os.readlink("/proc/thread-self/ns/net"))
def test_it({fixture}):
    where("worker")
""")
    project.write("import test_it, os\ndef pytest_configure_node(node): test_it.where('controller')\n", "conftest.py")
    project.run("-n", "1", f"--netns-workers={option}").assert_outcomes(passed=1)
    controller, worker = ((project.path / name).read_text() for name in ("controller", "worker"))
    assert (worker == controller) == is_shared
    assert os.readlink("/proc/thread-self/ns/net") not in (controller, worker)


def test_named_namespaces_are_each_workers_own_and_watched(project: Project) -> None:
    project.write("""
import pytest
from vethlib import ns
@pytest.mark.parametrize("number", range(6))
def test_it(netns, number):
    assert ns.names() == []
    ns.Netns.create("blue").close()
    if number % 2:
        ns.remove("blue")
""")
    result = project.run("-n", "2")
    result.assert_outcomes(passed=6, errors=3)
    assert "namespace blue, in /run/netns" in result.stdout.str()


ODD = """
import os, subprocess
ODD = os.fsdecode(b"d\\xff\\x1b[1m")  # not UTF-8, and a terminal would obey it
PAIR = ["ip", "link", "add", ODD, "up", "type", "veth", "peer", "name", "p", "address", "02:00:00:00:00:01"]
PROGRAM = ["sh", "-c", "sleep 60; :", ODD]
def test_passes(netns): pass
"""


@pytest.mark.parametrize(
    ("body", "leaks"),
    [
        ("netns.run(PAIR); assert False", False),
        ("netns.start(PROGRAM); assert False", False),
        ("subprocess.run(PAIR, check=True)", True),
        ("subprocess.run(['ip', 'netns', 'add', ODD], check=True)", True),
        ("with netns: subprocess.Popen(PROGRAM)", True),
    ],
    ids=["a link of a node", "a program of a node", "a link left", "a namespace left", "a process left"],
)
def test_a_name_that_is_no_text_is_escaped_in_what_a_worker_reports(project: Project, body: str, leaks: bool) -> None:
    project.write(f"{ODD}def test_it(netns):\n    {body}\n")
    result = project.run("-n", "1", "--netns-workers=own")
    result.assert_outcomes(passed=1 + leaks, failed=not leaks, errors=leaks)
    assert "d\\xff\\x1b[1m" in result.stdout.str()
    assert "\x1b" not in result.stdout.str()


def test_what_another_plugin_keeps_of_a_failed_test_is_no_leak_of_the_next_one(project: Project) -> None:
    project.write(
        """
import pytest
KEPT = []
@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    KEPT.append(call.excinfo)
    return (yield)
""",
        "conftest.py",
    )
    project.write("""
def test_fails(netns):
    local = netns.socket()
    try:
        assert local.fileno() < 0
    except AssertionError as error:
        raise ValueError from error

def test_next(netns): pass
def test_last(netns): pass
""")
    project.run().assert_outcomes(passed=2, failed=1)


def test_the_files_are_searched_once_for_all_workers(project: Project) -> None:
    project.write("def test_it(veth): pass\n")
    project.write(
        "from vethlib.pytest_netns.isolation import enter\nfind = enter.find_use\n"
        "def find_use(config, *names):\n    if names: print('looked for it')\n    return find(config, *names)\n"
        "enter.find_use = find_use\n",
        "conftest.py",
    )
    result = project.run("-n", "3", "-s")
    result.assert_outcomes(passed=1)
    assert result.stdout.str().count("looked for it") == 1
