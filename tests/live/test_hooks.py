"""Hooks with real commands and real servers: what they receive, and what they leave behind."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.live.applying import value
from tests.live.silent import silent_fuse
from tests.programs import attended, children, runs
from tests.witness import names, open_fds, poll, seen
from vethlib import End, Session, Veth, ns
from vethlib.agent import Configurator, Interface
from vethlib.agent.hooks import Hooks, command
from vethlib.agent.hooks.post import _trust
from vethlib.agent.reconcile.statuses import StatusChange
from vethlib.agent.state import State
from vethlib.agent.status import Status

ROOT = Path(__file__).parents[2]

PATIENCE = 60.0  # seconds; on a busy machine, a command needs some of them to start

pytestmark = pytest.mark.usefixtures("home")


def change(name: str, state: State = State.FAILED, old: State | None = None) -> StatusChange:
    before = None if old is None else Status(name, old, "", 0.0)
    return StatusChange(name, Status(name, state, "for a reason", 0.0), before)


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    """Makes a command out of lines for a shell; returns it as a hook."""

    def make(text: str) -> str:
        path = tmp_path / f"hook{len(list(tmp_path.iterdir()))}"
        path.write_text(f"#!/bin/sh\ncd {tmp_path}\n{text}\n")
        path.chmod(0o755)
        return f"exec:{path}"

    return make


class Server(HTTPServer):
    """Answers with the statuses it is given, the last one again and again; keeps what it was sent."""

    def __init__(self, *statuses: int, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.statuses = list(statuses)
        self.got: list[tuple[str, dict[str, str], Any]] = []
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self.thread.start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that does not trust us says so

    def end(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.got.append((self.path, dict(self.headers), body))
        statuses = self.server.statuses
        self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def serve(home: object) -> Iterator[Callable[..., Server]]:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    started: list[Server] = []

    def start(*statuses: int, context: ssl.SSLContext | None = None) -> Server:
        started.append(Server(*statuses, context=context))
        return started[-1]

    yield start
    for one in started:
        one.end()


def test_a_command_gets_the_event_on_stdin_and_in_its_environment(
    script: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VETHLIB_STORE", "etcd://u:secret@h")
    monkeypatch.setenv("NOTIFY_SOCKET", "@x")
    hook = script('cat >event; env >env; echo "$@" >arguments')
    with Hooks([f"{hook} -x 'a b; c'"], label="vpp1") as hooks:
        hooks.tell(change("veth1", State.FAILED, State.CONFIGURED))
        assert hooks.drain(PATIENCE)
    event = json.loads((tmp_path / "event").read_text())
    assert (event["name"], event["state"], event["old_state"]) == ("veth1", "FAILED", "CONFIGURED")
    environment = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines() if "=" in line)
    assert environment["VETHLIB_NAME"] == "veth1"
    assert environment["VETHLIB_REASON"] == "for a reason"
    assert "secret" not in environment.get("VETHLIB_STORE", "")
    assert "NOTIFY_SOCKET" not in environment
    assert (tmp_path / "arguments").read_text() == "-x a b; c\n"


def test_a_command_has_clean_signals_and_descriptors_and_is_in_the_home_namespace(
    script: Callable[[str], str], tmp_path: Path, session: Session, blue: str
) -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    ignored = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        hook = script(
            "grep -E 'Sig(Blk|Ign)' /proc/self/status >status; ls /proc/$$/fd >fds; readlink /proc/$$/ns/net >net"
        )
        home = os.readlink("/proc/thread-self/ns/net")
        with Hooks([hook]) as hooks:
            with ns.entered(blue):
                hooks.tell(change("a"))
            assert hooks.drain(PATIENCE)
    finally:
        signal.signal(signal.SIGUSR2, ignored)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(read)
        os.close(write)
    masks = [line.split()[1] for line in (tmp_path / "status").read_text().splitlines()]
    # glibc has every spawned process ignore its own two signals, 32 and 33 (sysdeps/unix/sysv/linux/spawni.c).
    assert [int(mask, 16) & ~(0b11 << 31) for mask in masks] == [0, 0]
    # The shell has the script itself open on 10 or so.
    assert [fd for fd in (tmp_path / "fds").read_text().split() if int(fd) < 10] in (
        ["0", "1", "2"],
        ["0", "1", "2", "3"],
    )
    assert str(write) not in (tmp_path / "fds").read_text().split() or write < 4
    assert (tmp_path / "net").read_text().strip() == home


def test_a_command_that_takes_too_long_is_killed_with_all_its_children(
    script: Callable[[str], str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hook = script("sleep 60 & echo $! >child; echo stuck >&2; wait")
    with Hooks([hook], timeout=5) as hooks, caplog.at_level(logging.INFO, "vethlib"):
        hooks.tell(change("a"))
        assert hooks.drain(PATIENCE)
        assert hooks.counts()[0].failed == 1
    # A signal reaches a process when that runs next; it is asleep for a minute otherwise.
    assert poll(lambda: not runs(int((tmp_path / "child").read_text())))
    assert "it took longer than 5 s and was killed; raise --hook-timeout" in caplog.text
    assert "its last line: stuck" in caplog.text


def test_what_a_command_leaves_running_ends_with_it(script: Callable[[str], str], tmp_path: Path) -> None:
    hook = script("sleep 60 >/dev/null 2>&1 & echo $! >child")
    with Hooks([hook]) as hooks:
        hooks.tell(change("a"))
        assert hooks.drain(PATIENCE)
    assert poll(lambda: not runs(int((tmp_path / "child").read_text())))


def test_closing_leaves_no_child_no_thread_and_no_descriptor(script: Callable[[str], str], tmp_path: Path) -> None:
    fds, threads = open_fds(), set(threading.enumerate())
    hooks = Hooks([script("echo $$ >pid; sleep 60")], concurrency=1)
    for name in "abc":
        hooks.tell(change(name))
    assert poll(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
    pid = int((tmp_path / "pid").read_text())
    started = time.monotonic()
    hooks.close(grace=0.1)
    hooks.close()
    assert time.monotonic() - started < 20  # where the command takes 60
    assert not runs(pid)
    assert open_fds() == fds
    assert set(threading.enumerate()) <= threads
    (counts,) = hooks.counts()
    assert (counts.delivered, counts.dropped, counts.waiting) == (0, 3, 0)
    hooks.tell(change("d"))  # too late, and no error


@pytest.fixture(params=[errno.EPERM, errno.ENOSYS, errno.EMFILE])
def _no_pidfds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a sandbox that does not know pidfd_open(2), before Linux 5.3, or with no descriptor left."""

    def refuse(pid: int) -> int:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(command, "pidfd_open", refuse)


@pytest.mark.usefixtures("_no_pidfds")
def test_a_command_runs_and_leaves_nothing_where_processes_have_no_descriptors(
    script: Callable[[str], str], tmp_path: Path
) -> None:
    before = children()
    with Hooks([script("sleep 0.1; touch done$VETHLIB_NAME"), script("exit 3")]) as hooks:
        hooks.tell(change("0"))
        assert hooks.drain(PATIENCE)
        assert poll(lambda: children() <= before)
        fds = open_fds()
        for number in range(1, 10):
            hooks.tell(change(f"{number}"))
        assert hooks.drain(PATIENCE)
        assert [(counts.delivered, counts.failed) for counts in hooks.counts()] == [(10, 0), (0, 10)]
        assert poll(lambda: (open_fds(), children() - before) == (fds, set()))
    assert len(list(tmp_path.glob("done*"))) == 10


@pytest.mark.usefixtures("_no_pidfds")
def test_a_command_that_takes_too_long_is_reaped_where_processes_have_no_descriptors(
    script: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    before = children()
    with Hooks([script("sleep 60")], timeout=1) as hooks:
        hooks.tell(change("a"))
        assert hooks.drain(PATIENCE)
        assert hooks.counts()[0].failed == 1
        assert children() - before == set()
    assert "it took longer than 1 s and was killed" in caplog.text


def test_telling_never_waits_and_a_hook_that_hangs_is_in_nobody_elses_way(
    script: Callable[[str], str], tmp_path: Path
) -> None:
    with Hooks([script("sleep 60"), script("echo $VETHLIB_NAME >>told")], capacity=50, timeout=30) as hooks:
        started = time.monotonic()
        for number in range(200):
            hooks.tell(change(f"veth{number}"))
        assert time.monotonic() - started < 20  # where one of the hooks takes 30
        assert poll(lambda: hooks.counts()[1].waiting == 0)
        stuck, other = hooks.counts()
        assert 46 <= stuck.waiting <= 50
        # Four are under way, and what it could not hold is counted; the newest is among what the other was told.
        assert stuck.waiting + stuck.dropped == 196
        told = tmp_path / "told"
        assert poll(lambda: told.exists() and "veth199" in told.read_text().split())
        assert sum((other.delivered, other.failed, other.dropped)) >= 50
        hooks.close(grace=0)


@pytest.mark.usefixtures("little_patience")
@pytest.mark.parametrize("silent", ["notify", "interpreter"])
def test_a_command_on_a_file_system_that_does_not_answer_hinders_nobody(
    script: Callable[[str], str], tmp_path: Path, caplog: pytest.LogCaptureFixture, silent: str
) -> None:
    file = tmp_path / "notify"
    for script_file, interpreter in ((tmp_path / "interpreter", "/bin/sh"), (file, tmp_path / "interpreter")):
        script_file.write_text(f"#! {interpreter} -e\n")
        script_file.chmod(0o755)
    other = tmp_path / "got"
    with silent_fuse(tmp_path / silent, is_file=True):
        with Hooks([f"exec:{file}", script(f"cat >{other}")], timeout=PATIENCE) as hooks:
            hooks.tell(change("a"))
            assert poll(lambda: other.exists() and other.read_text() != "")
            assert poll(lambda: hooks.counts()[0].failed == 1)
            began = time.monotonic()
        assert time.monotonic() - began < PATIENCE / 2
    assert f"{tmp_path / silent}: its file system does not answer" in caplog.text


def test_the_first_line_of_a_script_ends_at_a_nul_byte_as_it_does_for_the_kernel(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    path.write_bytes(b"#!/bin/sh\0 nothing\ntouch $0.ran\n")
    path.chmod(0o755)
    with Hooks([f"exec:{path}"]) as hooks:
        hooks.tell(change("x"))
        assert poll((tmp_path / "notify.ran").exists)


def test_failures_say_why_and_what_to_do_but_not_each_time(
    script: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "vethlib"), Hooks(["exec:/nowhere/notify"]) as hooks:
        for name in "abc":
            hooks.tell(change(name))
        assert hooks.drain(PATIENCE)
        assert hooks.counts()[0].failed == 3
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "hook exec:/nowhere/notify: the command cannot be run: create it; it is looked up for each event",
        "hook exec:/nowhere/notify failed for a: it cannot be run: No such file or directory; "
        "check that the file exists and is executable",
    ]
    caplog.clear()
    with caplog.at_level(logging.INFO, "vethlib"), Hooks([script("echo why >&2; exit 3")]) as hooks:
        hooks.tell(change("a"))
        assert hooks.drain(PATIENCE)
    assert caplog.text.rstrip().endswith("it exited with 3; its last line: why")


def test_a_url_gets_a_post_of_the_event(serve: Callable[..., Server]) -> None:
    server = serve(204)
    with Hooks([f"http://user:p%40ss@127.0.0.1:{server.server_port}/hook?a=b"], states=["failed"]) as hooks:
        hooks.tell(change("veth1"))
        hooks.tell(change("veth2", State.CONFIGURED))
        assert hooks.drain(PATIENCE)
        assert hooks.counts()[0].delivered == 1
    ((path, headers, body),) = server.got
    assert path == "/hook?a=b"
    assert headers["Content-Type"] == "application/json"
    assert headers["Authorization"] == "Basic dXNlcjpwQHNz"
    assert (body["name"], body["state"]) == ("veth1", "FAILED")


def test_a_url_that_is_away_is_tried_again_and_one_that_refuses_is_not(
    serve: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    away, refusing, elsewhere = serve(503, 503, 200), serve(401), serve(302)
    hooks = [f"http://127.0.0.1:{server.server_port}/secret" for server in (away, refusing, elsewhere)]
    with caplog.at_level(logging.INFO, "vethlib"), Hooks(hooks, delays=(0.05,) * 4) as told:
        told.tell(change("a"))
        assert told.drain(PATIENCE)
        assert [(one.delivered, one.failed) for one in told.counts()] == [(1, 0), (0, 1), (0, 1)]
    assert [len(server.got) for server in (away, refusing, elsewhere)] == [3, 1, 1]
    assert "it answered 401; check the user, password or token in its URL" in caplog.text
    assert "a redirect, which is not followed" in caplog.text
    assert "secret" not in caplog.text


def test_after_all_attempts_a_url_is_given_up(caplog: pytest.LogCaptureFixture, serve: Callable[..., Server]) -> None:
    port = serve(200).server_port
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with caplog.at_level(logging.INFO, "vethlib"), Hooks([f"http://127.0.0.1:{port}/"], delays=(0.02,) * 2) as hooks:
        hooks.tell(change("a"))
        assert hooks.drain(PATIENCE)
        assert hooks.counts()[0].failed == 1
    assert "it cannot be reached: Connection refused; check whether it listens there" in caplog.text


def test_something_newer_is_told_instead_of_another_try(serve: Callable[..., Server]) -> None:
    server = serve(503, 200)
    with Hooks([f"http://127.0.0.1:{server.server_port}/"], delays=(3.0,) * 4) as hooks:
        hooks.tell(change("a", State.FAILED))
        assert poll(lambda: len(server.got) == 1)
        hooks.tell(change("a", State.CONFIGURED, State.FAILED))
        assert hooks.drain(PATIENCE)
        (counts,) = hooks.counts()
    assert [body["state"] for _, _, body in server.got] == ["FAILED", "CONFIGURED"]
    assert (counts.delivered, counts.coalesced, counts.failed) == (1, 1, 0)


def test_a_server_that_says_nothing_is_left_in_time(serve: Callable[..., Server]) -> None:
    serve(200)  # which has lo set up
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with Hooks([f"http://127.0.0.1:{silent.getsockname()[1]}/"], timeout=0.2, delays=()) as hooks:
            hooks.tell(change("a"))
            assert hooks.drain(PATIENCE)
            assert hooks.counts()[0].failed == 1
        hanging = Hooks([f"http://127.0.0.1:{silent.getsockname()[1]}/"], timeout=60)
        hanging.tell(change("a"))
        time.sleep(0.1)
        started = time.monotonic()
        hanging.close(grace=0.1)
        assert time.monotonic() - started < 20  # where an answer is waited for 60


def test_the_certificate_of_a_url_is_checked(
    serve: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = serve(200, context=context)
    url = f"https://127.0.0.1:{server.server_port}/"
    _trust.cache_clear()
    with caplog.at_level(logging.INFO, "vethlib"), Hooks([url], delays=()) as hooks:
        hooks.tell(change("a"))
        assert hooks.drain(PATIENCE)
    assert "its certificate is not trusted" in caplog.text
    assert server.got == []
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with Hooks([url], delays=()) as hooks:
        hooks.tell(change("a"))
        assert hooks.drain(PATIENCE)
        assert hooks.counts()[0].delivered == 1
    _trust.cache_clear()
    assert len(server.got) == 1


def test_an_embedder_subscribes_hooks_to_a_configurator(
    session: Session, script: Callable[[str], str], tmp_path: Path
) -> None:
    hook = script('echo "$VETHLIB_NAME $VETHLIB_OLD_STATE $VETHLIB_STATE $VETHLIB_IFINDEX" >>told')
    with Configurator(session, label="t") as configurator, Hooks([hook], label="t", concurrency=1) as hooks:
        configurator.subscribe(hooks.tell)
        ends = [Interface("v1", "v2"), Interface("v2", "v1")]
        configurator.put(ends[0])
        configurator.poll()
        assert hooks.drain(PATIENCE)
        configurator.put(ends[1])
        configurator.poll()
        assert hooks.drain(PATIENCE)
        index = session.index("v1")
        configurator.delete("v1")
        configurator.poll()
        assert hooks.drain(PATIENCE)
    told = [line for line in (tmp_path / "told").read_text().splitlines() if line.startswith("v1 ")]
    assert told == ["v1  PENDING ", f"v1 PENDING CONFIGURED {index}", "v1 CONFIGURED removed "]


def agent(*options: str, store: Path) -> list[str]:
    command = [sys.executable, "-m", "vethlib", "agent", "--store", f"dir:{store}", "--docker", "off"]
    return [*command, "--label", "hooked", "--status-dir", str(store.parent / "status"), *options]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    directory = tmp_path / "store"
    directory.mkdir()
    (directory / "v1.json").write_text(json.dumps(value("v1", "v2")))
    return directory


def test_an_agent_that_runs_once_tells_its_hooks_before_it_ends(
    script: Callable[[str], str], tmp_path: Path, store: Path
) -> None:
    options = ("--once", "--hook", script("cat >>told"), "--hook-states", "PENDING")
    done = subprocess.run(agent(*options, store=store), capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 3, done.stderr
    told = json.loads((tmp_path / "told").read_text())
    assert [told[key] for key in ("name", "state", "label", "reason")] == [
        "v1", "PENDING", "hooked", "peer v2 is not configured",
    ]  # fmt: skip


def test_hooks_in_the_environment_are_called_and_may_call_vethctl(
    script: Callable[[str], str], tmp_path: Path, store: Path, session: Session
) -> None:
    (store / "v2.json").write_text(json.dumps(value("v2", "v1")))
    session.create(Veth(End("other"), End("otherb")))
    vethctl = f"cd {ROOT} && {sys.executable} -m vethlib"
    hooks = [script("cat >>told"), script(f"{vethctl} set other --mtu 1400 && {vethctl} stats >{tmp_path}/stats")]
    environment = os.environ | {"VETHLIB_HOOK": "\n".join(hooks), "VETHLIB_HOOK_STATES": "CONFIGURED"}
    done = subprocess.run(
        agent("--once", store=store), capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert {event["name"] for event in told} == {"v1", "v2"}
    assert seen("other")["mtu"] == 1400
    assert {"v1", "v2", "otherb"} <= names()
    assert "other " in (tmp_path / "stats").read_text()


@pytest.mark.parametrize("directory", ["--status-dir=elsewhere", "--status-dir={}/elsewhere", ""])
def test_a_hook_finds_the_statuses_of_its_agent(
    script: Callable[[str], str], tmp_path: Path, store: Path, directory: str
) -> None:
    told = tmp_path / "told"
    # A hook is called before the status is published.
    status = f"{sys.executable} -m vethlib status --json >{told}.part; grep -q v1 {told}.part"
    hook = script(f"cd {ROOT}; until {status}; do sleep 0.1; done; mv {told}.part {told}")
    command = [sys.executable, "-m", "vethlib", "agent", "--store", f"dir:{store}", "--docker", "off", "--label", "h"]
    command += ["--hook", hook, *filter(None, [directory.format(tmp_path)])]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with attended(subprocess.Popen(command, cwd=tmp_path, env=environment)) as process:
        assert poll(told.exists)
        process.terminate()
        assert process.wait(PATIENCE) == 0
    assert [entry["name"] for entry in json.loads(told.read_text())] == ["v1"]


@pytest.mark.parametrize("ignored", [True, False])
@pytest.mark.parametrize("ends", ["exit 1", "kill -9 $$", "exit 0"])
def test_a_hook_that_fails_is_noticed_by_an_agent_that_was_started_with_sigchld_ignored(
    script: Callable[[str], str], store: Path, ignored: bool, ends: str
) -> None:
    command = agent("--once", "--hook", script(ends), store=store)
    trap = "trap '' CHLD; " if ignored else ""
    done = subprocess.run(
        ["bash", "-c", f'{trap}exec "$@"', "bash", *command], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 3, done.stderr
    assert (" failed for v1: " in done.stderr) == (ends != "exit 0")


def test_an_agent_that_is_ended_takes_its_hooks_along(
    script: Callable[[str], str], tmp_path: Path, store: Path
) -> None:
    hook = script("sleep 60 & echo $! >child; wait")
    with attended(
        subprocess.Popen(agent("--hook", hook, store=store), stderr=subprocess.PIPE, text=True, cwd=ROOT)
    ) as process:
        try:
            assert poll(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text() != "")
            child = int((tmp_path / "child").read_text())
            assert runs(child)
        finally:
            process.terminate()
        assert process.wait(PATIENCE) == 0
        assert process.stderr is not None
        assert "was not told" not in process.stderr.read()  # nothing waited
    assert poll(lambda: not runs(child))


def test_a_hook_that_is_none_keeps_an_agent_from_starting(store: Path) -> None:
    for options, field in (
        (["--hook", "notify"], "--hook"),
        (["--hook", "exec:/bin/true", "--hook-states", "X"], "--hook-states"),
        (["--hook", "exec:/bin/true", "--hook-timeout", "0"], "--hook-timeout"),
    ):
        done = subprocess.run(
            agent("--json", *options, store=store), capture_output=True, text=True, check=False, cwd=ROOT
        )
        assert done.returncode == 1
        assert json.loads(done.stderr.splitlines()[-1])["field"] == field
