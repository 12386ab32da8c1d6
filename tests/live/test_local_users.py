"""Another user of the host cannot harm an agent or a trial, and is named in the messages."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from tests.live.applying import EXAMPLES
from tests.live.children import staying
from tests.live.other_user import LABEL, OTHER, RUN, As
from tests.programs import attended
from tests.witness import ip, poll
from vethlib import ns
from vethlib.agent.metrics import Endpoint
from vethlib.agent.metrics.endpoint import Address
from vethlib.agent.process.answering import Answering
from vethlib.agent.process.claim import call, holder_of
from vethlib.agent.process.instance import AlreadyRunning, Instance, agent_of, running
from vethlib.agent.run.trial import AlreadyTrying, NoTrial, Trial, settle
from vethlib.errors import VethError

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.usefixtures("home"),
    pytest.mark.skipif(os.geteuid() != 0, reason="somebody else is needed"),
]


def squat(address: str, kind: int, how: str) -> object:
    made = socket.socket(socket.AF_UNIX, kind)
    made.bind(address)
    waiting = []
    if how != "deaf":
        made.listen(0)
    while how == "full":
        caller = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
        waiting.append(caller)
        try:
            caller.connect(address)
        except BlockingIOError:
            break
    return made, waiting


HOW = ["listening", "deaf", "full"]


@pytest.fixture(params=HOW)
def squatter(request: pytest.FixtureRequest, as_other: As) -> int:
    """The pid of a process that holds the abstract names of the agent and of the trial."""

    def both() -> object:
        agent = squat(f"\0vethlib/agent/{LABEL}", socket.SOCK_STREAM, request.param)
        return agent, squat(f"\0vethlib/try/{LABEL}", socket.SOCK_SEQPACKET, request.param)

    return as_other(both)


def test_a_squatter_keeps_no_agent_from_starting_and_is_named(squatter: int, caplog: pytest.LogCaptureFixture) -> None:
    with closing(Instance(LABEL)):
        assert running(LABEL) == os.getpid()
        with pytest.raises(AlreadyRunning) as caught:
            Instance(LABEL)
        assert caught.value.pid == os.getpid()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert str(squatter) in record.getMessage()
    assert str(OTHER) in record.getMessage()
    assert running(LABEL) is None


def test_a_squatter_does_not_pass_for_an_agent(squatter: int, request: pytest.FixtureRequest) -> None:
    assert running(LABEL) is None
    if "deaf" not in request.node.name:
        assert agent_of(LABEL) == (squatter, OTHER, False)


def test_confirm_does_not_wait_for_a_squatter(squatter: int, request: pytest.FixtureRequest) -> None:
    began = time.monotonic()
    with pytest.raises(NoTrial) as caught:
        settle(LABEL, "keep")
    assert time.monotonic() - began < 5
    if "deaf" not in request.node.name:
        assert {str(squatter), str(OTHER)} <= set(str(caught.value).replace(")", " ").split())


def test_a_trial_beside_a_squatter_is_confirmed(squatter: int) -> None:
    with Trial(LABEL) as trial:
        assert str(squatter) in trial.warning
        with pytest.raises(AlreadyTrying):
            Trial(LABEL)
        confirm = subprocess.Popen(
            [sys.executable, "-m", "vethlib", "confirm", "--label", LABEL, "--json"], stdout=subprocess.PIPE, cwd=ROOT
        )
        word: list[str] = []

        def heard() -> bool:
            word.append(trial.hear())
            return bool(word[-1])

        assert poll(heard)
        trial.answer("kept")
        out, _ = confirm.communicate(timeout=60)
    assert word[-1] == "keep"
    assert json.loads(out) == {"outcome": "kept"}


def test_nobody_else_can_call_a_trial_or_fill_its_queue(as_other: As) -> None:
    with Trial(LABEL) as trial:
        name = next(path for path in RUN.iterdir() if path.name.startswith(f"{LABEL}@") and path.name.endswith(".try"))

        def call() -> object:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as calling, pytest.raises(PermissionError):
                calling.connect(str(name))
            return squat_callers(f"\0vethlib/try/{LABEL}")

        as_other(call)
        assert trial.hear() == ""
        assert holder_of("try", LABEL, socket.SOCK_SEQPACKET) == (os.getpid(), 0, True)


def squat_callers(address: str) -> object:
    callers = []
    for _ in range(200):
        caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        callers.append(caller)
        try:
            caller.connect(address)
            caller.send(b"keep")
        except BlockingIOError:
            break
    return callers


def test_nobody_else_can_hold_the_lock_or_put_a_socket_in_its_place(as_other: As) -> None:
    with closing(Instance(LABEL)):
        (lock,) = RUN.glob(f"{LABEL}@*.agent.lock")

        def meddle() -> None:
            for how in (os.O_RDONLY, os.O_RDWR):
                with pytest.raises(PermissionError):
                    os.open(lock, how)
            with pytest.raises(PermissionError):
                lock.unlink()
            with socket.socket(socket.AF_UNIX) as made, pytest.raises(PermissionError):
                made.bind(f"{RUN}/other")

        as_other(meddle)
        assert running(LABEL) == os.getpid()
    assert not list(RUN.glob(f"{LABEL}@*"))


@pytest.mark.parametrize("kind", ["file", "open file", "hard link", "link", "fifo", "directory"])
@pytest.mark.parametrize("end", ["agent", "agent.lock"])
def test_what_was_planted_while_others_could_write_there_is_replaced(
    as_other: As, tmp_path: Path, kind: str, end: str
) -> None:
    RUN.mkdir(exist_ok=True)
    RUN.chmod(0o777)
    planted = RUN / f"{LABEL}@{os.stat('/proc/thread-self/ns/net').st_ino}.{end}"
    secret = RUN / "secret" if kind == "hard link" else tmp_path / "secret"
    secret.write_text("mine")

    def plant() -> object:
        if kind == "link":
            planted.symlink_to(secret)
        elif kind == "fifo":
            os.mkfifo(planted)
        elif kind == "directory":
            (planted / "full").mkdir(parents=True)
        elif kind != "hard link":
            file = planted.open("w")
            file.flush()
            return file
        return None

    as_other(plant)
    if kind == "hard link":
        os.link(secret, planted)  # which fs.protected_hardlinks keeps others from
    with closing(Instance(LABEL)):
        assert RUN.stat().st_mode & 0o7777 == 0o755
        assert running(LABEL) == os.getpid()
        with pytest.raises(AlreadyRunning):
            Instance(LABEL)
    assert secret.read_text() == "mine"
    assert secret.stat().st_mode & 0o777 == 0o644
    for left in RUN.glob("*.planted.*"):
        (left / "full").rmdir()
        left.rmdir()


@pytest.mark.parametrize("mask", [0, 0o077])
def test_everybody_can_ask_for_an_agent_whatever_the_umask(as_other: As, mask: int) -> None:
    before = os.umask(mask)
    try:
        instance = Instance(LABEL)
    finally:
        os.umask(before)
    with closing(instance):
        me = os.getpid()

        def ask() -> None:
            assert agent_of(LABEL) == (me, 0, True)

        as_other(ask)


def test_each_network_namespace_has_an_agent_of_the_label(home: ns.Netns) -> None:
    with closing(Instance(LABEL)), ns.Netns.anonymous() as other, other.entered():
        assert running(LABEL) is None
        Instance(LABEL).close()


def test_an_agent_that_sees_another_run_is_found(as_other: As) -> None:
    program = f"""if True:
        from vethlib.agent.process.instance import Instance
        held = Instance({LABEL!r})
        print(flush=True)
        input()
    """
    away = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh", sys.executable, "-c", program]
    with attended(subprocess.Popen(away, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline()
        assert running(LABEL) == agent.pid
        with pytest.raises(AlreadyRunning):
            Instance(LABEL)
        agent.kill()


def test_an_agent_of_an_ordinary_user_is_known_to_that_user_alone(
    as_other: As, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Path("/run/user-12345")
    runtime.mkdir(exist_ok=True)
    os.chown(runtime, OTHER, OTHER)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))

    def begin() -> object:
        instance = Instance(LABEL)
        assert running(LABEL) == os.getpid()
        with pytest.raises(AlreadyRunning):
            Instance(LABEL)
        return instance

    as_other(begin)
    assert running(LABEL) is None
    Instance(LABEL).close()


def test_an_agent_of_the_user_to_whom_root_gave_the_directory_is_one(as_other: As) -> None:
    RUN.mkdir(exist_ok=True)
    os.chown(RUN, OTHER, OTHER)
    try:
        pid = as_other(lambda: Instance(LABEL))
        assert running(LABEL) == pid
        with pytest.raises(AlreadyRunning):
            Instance(LABEL)
    finally:
        os.chown(RUN, 0, 0)


@pytest.mark.parametrize("squatter", ["listening"], indirect=True)
def test_vethctl_tells_who_squats(squatter: int) -> None:
    def vethctl(*argv: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vethlib", *argv, "--label", LABEL]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)

    done = vethctl("agent", "--store", f"dir:{EXAMPLES / 'pair'}", "--once", "--docker", "off")
    assert done.returncode == 0
    assert {str(squatter), str(OTHER)} <= set(done.stderr.replace(",", " ").split())
    done = vethctl("status", "--json")
    assert done.returncode == 2
    assert json.loads(done.stderr.splitlines()[-1])["code"] == "not-running"
    assert str(squatter) in done.stderr


def squat_port(port: int, *, listens: bool) -> object:
    made = socket.socket()
    made.bind(("127.0.0.1", port))
    if listens:
        made.listen()
    return made


def test_one_who_has_the_address_of_the_metrics_without_listening_is_a_squatter_too(as_other: As) -> None:
    ip("link", "set", "lo", "up")
    as_other(lambda: squat_port(9751, listens=False))
    endpoint = Endpoint(Address("127.0.0.1", 9751), CollectorRegistry(), lambda: "")
    assert endpoint.address.port == 9751
    endpoint.close()


@pytest.mark.parametrize(
    ("roots", "wanted"),
    [
        (("127.0.0.1",), "127.0.0.2"),
        (("127.0.0.1", "127.0.0.3"), "127.0.0.2"),
        (("::1",), "127.0.0.2"),
        (("127.0.0.1",), "::1"),
    ],
)
def test_what_root_serves_at_another_address_does_not_hide_the_squatter(
    as_other: As, roots: tuple[str, ...], wanted: str
) -> None:
    ip("link", "set", "lo", "up")
    with ExitStack() as stack:
        for host in roots:
            stack.enter_context(listening_at(host))
        as_other(lambda: listening_at(wanted))
        Endpoint(Address(wanted, 9751), CollectorRegistry(), lambda: "").close()


@pytest.mark.parametrize(
    ("roots", "wanted"),
    [("127.0.0.2", "127.0.0.2"), ("0.0.0.0", "127.0.0.2"), ("127.0.0.2", ""), ("::1", "::1"), ("::", "::1")],
)
def test_what_root_serves_at_the_address_is_no_squatters(roots: str, wanted: str) -> None:
    ip("link", "set", "lo", "up")
    with listening_at(roots), pytest.raises(VethError):
        Endpoint(Address(wanted, 9751), CollectorRegistry(), lambda: "")


def listening_at(host: str) -> socket.socket:
    return socket.create_server((host, 9751), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def test_a_squatter_on_the_address_of_the_metrics_keeps_no_agent_from_starting(as_other: As, tmp_path: Path) -> None:
    ip("link", "set", "lo", "up")
    pid = as_other(lambda: squat_port(9751, listens=True))
    log = tmp_path / "log"
    command = [sys.executable, "-m", "vethlib", "agent", "--store", f"dir:{EXAMPLES / 'pair'}", "--label", LABEL]
    command += ["--docker", "off", "--metrics", "127.0.0.1:9751"]
    with log.open("w") as stderr, attended(subprocess.Popen(command, cwd=ROOT, stderr=stderr)) as agent:
        try:
            assert poll(lambda: "started: 2 CONFIGURED" in log.read_text(), 30)
            assert {str(pid), str(OTHER)} <= set(log.read_text().split())
            os.kill(pid, signal.SIGKILL)
            assert poll(lambda: get(9751) == b"ok\n")
        finally:
            agent.terminate()
            assert agent.wait(60) == 0


def get(port: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as to:
            to.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            return to.makefile("rb").read().rpartition(b"\r\n\r\n")[2]
    except OSError:
        return b""


def crowd(users: int, each: int) -> object:
    """Connections that send nothing, by a number of users."""
    connections = []
    for user in range(OTHER, OTHER + users):
        os.setegid(user)
        os.seteuid(user)
        for _ in range(each):
            calling = socket.socket(socket.AF_UNIX)
            calling.setblocking(False)
            calling.connect(f"\0vethlib/agent/{LABEL}")
            connections.append(calling)
        os.seteuid(0)
        os.setegid(0)
    return connections


@pytest.mark.parametrize(("users", "each"), [(1, 40), (2, 30), (30, 1), (60, 1)])
@pytest.mark.parametrize("when", ["before", "after"])
def test_many_connections_of_others_replace_none_of_root(users: int, each: int, when: str) -> None:
    loop = asyncio.new_event_loop()

    def turn() -> None:
        for _ in range(5):
            loop.run_until_complete(asyncio.sleep(0))

    with ExitStack() as stack:
        stack.enter_context(closing(loop))
        instance = stack.enter_context(closing(Instance(LABEL)))
        stack.enter_context(closing(Answering(loop, instance, lambda line, trusted: line)))
        if when == "before":
            stack.enter_context(staying(lambda: crowd(users, each)))
        calling, holder = call("agent", LABEL, socket.SOCK_STREAM)
        assert calling is not None
        assert holder is not None
        stack.enter_context(calling)
        turn()
        if when == "after":
            stack.enter_context(staying(lambda: crowd(users, each)))
            turn()
        calling.sendall(b"here\n")

        def answered() -> bool:
            turn()
            return bool(select.select([calling], [], [], 0)[0])

        assert poll(answered)
        assert calling.recv(100) == b"here\n"
