"""Programs in a named namespace: `ns.run` and `vethctl netns exec`, and sockets of a namespace."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.capabilities import dropped
from tests.commands import Vethctl, runner
from tests.live.threads import no_thread_left
from tests.programs import attended, killed_with_its_parent
from tests.refusing import raises
from tests.witness import names, open_fds, poll
from vethlib import End, InvalidValue, Netns, NetnsNotFound, NotPermitted, Session, SessionClosed, Veth, VethError, ns
from vethlib.ns.programs import view

Exec = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def wired(session: Session, blue: str) -> str:
    session.create(Veth(End("here"), End("there", blue, addresses=["10.0.0.2/24"])))
    return blue


@pytest.fixture
def execute(home: Netns) -> Exec:
    def run(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vethlib", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **options)

    return run


@pytest.fixture
def configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str, str], None]:
    """Write a file in the directory that stands for /etc/netns, to which not every user may write."""
    monkeypatch.setattr(view, "CONFIGURATION", str(tmp_path))

    def write(name: str, file: str, text: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(text)

    return write


MAIN = "from vethlib.ns.programs import view; view.CONFIGURATION = {!r}; import vethlib.cli; vethlib.cli.main({!r})"


def executed(*words: str) -> subprocess.CompletedProcess[str]:
    """`vethctl netns exec` with that directory."""
    script = MAIN.format(view.CONFIGURATION, ["netns", "exec", *words])
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)


def test_a_program_runs_in_the_namespace_and_the_caller_stays(wired: str) -> None:
    before, fds = os.stat("/proc/thread-self/ns/net").st_ino, open_fds()
    said = ns.run(wired, ["ip", "-j", "link"], check=True, capture_output=True, text=True)
    assert {link["ifname"] for link in json.loads(said.stdout)} == {"lo", "there"}
    assert os.stat("/proc/thread-self/ns/net").st_ino == before
    assert (names(), open_fds()) == ({"here"}, fds)


@pytest.mark.parametrize("spelling", ["blue", "netns:blue", "path:/run/netns/blue", "Netns"])
def test_every_reference_leads_there(wired: str, spelling: str) -> None:
    with Netns.open(wired) as opened:
        said = ns.run(opened if spelling == "Netns" else spelling, ["ls", "/sys/class/net"], capture_output=True)
    assert said.stdout.split() == [b"lo", b"there"]


def test_the_options_are_those_of_subprocess(blue: str) -> None:
    assert ns.run(blue, ["cat"], input="x", capture_output=True, text=True).stdout == "x"
    assert ns.run(blue, ["sh", "-c", "exit 3"]).returncode == 3
    with pytest.raises(subprocess.CalledProcessError) as failed:
        ns.run(blue, ["sh", "-c", "exit 3"], check=True)
    assert failed.value.returncode == 3
    with pytest.raises(subprocess.TimeoutExpired):
        ns.run(blue, ["sleep", "60"], timeout=0.1)
    with pytest.raises(FileNotFoundError):
        ns.run(blue, ["no-such-program"])
    with pytest.raises(NetnsNotFound):
        ns.run("nowhere", ["true"])
    with pytest.raises(InvalidValue) as wrong:
        ns.run(blue, "ip link")
    assert wrong.value.field == "command"


@pytest.mark.parametrize("where", ["a name", "home"])
@pytest.mark.parametrize("options", [{}, {"capture_output": True}, {"input": b"x", "timeout": 60.0}], ids=str)
def test_a_program_that_is_to_be_killed_with_its_parent_runs_to_its_end(
    blue: str, where: str, options: dict[str, Any]
) -> None:
    command, ref = ["sh", "-c", "sleep 0.3; exit 3"], "" if where == "home" else blue
    assert ns.run(ref, command, preexec_fn=killed_with_its_parent, **options).returncode == 3


@pytest.mark.parametrize(
    ("command", "options", "raised"),
    [
        (["true"], {}, None),
        (["false"], {"check": True}, subprocess.CalledProcessError),
        (["sleep", "60"], {"timeout": 0.1}, subprocess.TimeoutExpired),
        (["no-such-program"], {}, FileNotFoundError),
    ],
)
def test_no_thread_stays_when_a_program_has_ended(
    blue: str, command: list[str], options: dict[str, Any], raised: type[Exception] | None
) -> None:
    before = set(os.listdir("/proc/self/task"))
    with pytest.raises(raised) if raised else nullcontext():
        ns.run(blue, command, **options)
    assert poll(lambda: before.issuperset(os.listdir("/proc/self/task")))  # it is listed a moment longer than it runs


@pytest.mark.parametrize("ref", ["{}", "path:/run/netns/{}"])
def test_while_a_program_is_waited_for_no_thread_is_in_its_namespace(blue: str, ref: str, tmp_path: Path) -> None:
    def namespaces() -> set[int]:
        return {os.stat(f"/proc/self/task/{tid}/ns/net").st_ino for tid in os.listdir("/proc/self/task")}

    before = namespaces()
    begun, end = tmp_path / "begun", tmp_path / "end"
    command = ["sh", "-c", f"touch {begun}; until [ -e {end} ]; do sleep 0.01; done"]
    waiting = threading.Thread(target=ns.run, args=(ref.format(blue), command))
    waiting.start()
    try:
        assert poll(begun.exists)
        assert poll(lambda: namespaces() == before)  # from a moment after the start on
    finally:
        end.touch()
        waiting.join()


def test_a_program_without_permission_is_refused(blue: str) -> None:
    with dropped(), pytest.raises(NotPermitted):
        ns.run(blue, ["true"])


def test_mounts_of_a_program_are_its_own(blue: str) -> None:
    before = Path("/proc/self/mounts").read_text()
    ns.run(blue, ["mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=True)
    assert Path("/proc/self/mounts").read_text() == before


def test_files_of_etc_netns_take_the_place_of_those_in_etc(
    blue: str, red: str, configuration: Callable[[str, str, str], None]
) -> None:
    configuration(blue, "hosts", "10.9.9.9 own\n")
    before = Path("/etc/hosts").read_text()
    assert ns.run(blue, ["cat", "/etc/hosts"], capture_output=True, text=True).stdout == "10.9.9.9 own\n"
    assert executed(blue, "cat", "/etc/hosts").stdout == "10.9.9.9 own\n"
    assert executed(red, "cat", "/etc/hosts").stdout == before
    assert Path("/etc/hosts").read_text() == before


def test_a_program_that_no_thread_can_start_is_refused(home: Netns, blue: str) -> None:
    before = open_fds()
    with no_thread_left(), raises(VethError, errno=errno.EAGAIN):
        ns.run(blue, ["true"])
    assert open_fds() == before


def test_a_file_that_etc_lacks_is_reported_and_the_program_runs(
    blue: str, configuration: Callable[[str, str, str], None]
) -> None:
    configuration(blue, "no-such-file", "x")
    with pytest.warns(RuntimeWarning, match="no-such-file"):
        assert ns.run(blue, ["true"]).returncode == 0
    done = executed(blue, "echo", "ran")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert "no-such-file" in done.stderr


def test_vethctl_becomes_the_program(wired: str, execute: Exec) -> None:
    with attended(
        subprocess.Popen(
            [sys.executable, "-m", "vethlib", "netns", "exec", wired, "sh", "-c", "echo $$; ls /sys/class/net"],
            stdout=subprocess.PIPE,
            text=True,
        )
    ) as started:
        pid, *links = started.communicate(timeout=60)[0].split()
    assert (int(pid), links) == (started.pid, ["lo", "there"])


def test_all_words_after_the_namespace_are_for_the_program(blue: str, execute: Exec) -> None:
    words = ["--json", "--color", "always", "-x", "--help", "--", "dir:/tmp", "etcd://u:p@h:1"]
    script = ["sh", "-c", 'printf "%s\\n" "$@"', "sh", *words]
    for front in (["netns", "exec", blue], ["--color", "never", "netns", "--json", "exec", blue, "--"]):
        done = execute(*front, *script)
        assert (done.returncode, done.stdout.splitlines(), done.stderr) == (0, words, "")


def test_the_exit_code_is_that_of_the_program(blue: str, execute: Exec, tmp_path: Path) -> None:
    assert execute("netns", "exec", blue, "sh", "-c", "exit 42").returncode == 42
    assert execute("netns", "exec", blue, "sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM
    text = tmp_path / "text"
    text.write_text("no program\n")
    text.chmod(0o755)
    for command, code in (
        ("", 127),
        ("no-such-program", 127),
        (str(tmp_path / "none"), 127),
        ("/etc", 126),
        (str(text), 126),
    ):
        done = execute("--json", "netns", "exec", blue, command)
        assert done.returncode == code, command
        assert (json.loads(done.stderr)["code"], json.loads(done.stderr)["field"]) == ("not-run", "PROGRAM")


def test_a_program_does_not_ignore_what_python_ignores(blue: str, execute: Exec) -> None:
    done = execute("netns", "exec", blue, "grep", "SigIgn", "/proc/self/status")
    assert int(done.stdout.split()[1], 16) & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1) == 0


@pytest.mark.parametrize(
    ("words", "code", "field"),
    [
        (["exec"], 1, "PROGRAM"),
        (["exec", "blue"], 1, "PROGRAM"),
        (["exec", "--up", "blue", "true"], 1, "--up"),
        (["exec", "pid:x", "true"], 1, "NETNS"),
        (["exec", "nowhere", "true"], 2, ""),
    ],
)
def test_what_is_wrong_is_reported_before_anything_runs(
    words: list[str], code: int, field: str, blue: str, execute: Exec
) -> None:
    done = execute("--json", "netns", *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert json.loads(done.stderr)["field"] == field


def test_a_program_and_its_namespace_are_completed(
    blue: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    vethctl: Vethctl = runner(capsys, monkeypatch)

    def offered(*line: str) -> list[str]:
        return [answer.split("\t")[0] for answer in vethctl("complete", "--", *line).out.splitlines()]

    assert offered("netns", "exec", "") == [blue]
    assert "sleep" in offered("netns", "exec", blue, "slee")
    assert offered("netns", "exec", blue, "./") == [":files"]
    assert offered("netns", "exec", blue, "cat", "--j") == [":files"]


def test_a_socket_belongs_to_the_namespace_in_which_it_was_made(wired: str, session: Session) -> None:
    session.set("here", addresses=["10.0.0.1/24"])
    with session.socket(wired) as server, session.socket() as client:
        server.bind(("10.0.0.2", 7))
        server.listen()
        client.connect(("10.0.0.2", 7))
        with server.accept()[0] as accepted:
            assert accepted.getpeername()[0] == "10.0.0.1"
    with session.socket(f"netns:{wired}", socket.AF_INET6, socket.SOCK_DGRAM) as made:
        assert (made.family, made.type) == (socket.AF_INET6, socket.SOCK_DGRAM)


def test_any_thread_gets_a_socket_of_the_session_s_home(session: Session, blue: str) -> None:
    session.create(Veth(End("here", addresses=["10.0.0.1/24"]), End("there", blue)))
    bound: list[str] = []

    def elsewhere() -> None:
        with ns.entered(blue), session.socket() as made:
            made.bind(("10.0.0.1", 0))
            bound.append(made.getsockname()[0])

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert bound == ["10.0.0.1"]


def test_a_socket_of_nowhere_is_an_error(home: Netns) -> None:
    with Session() as session:
        with pytest.raises(NetnsNotFound):
            session.socket("nowhere")
        with pytest.raises(OSError):
            session.socket("", 999)
    with pytest.raises(SessionClosed):
        session.socket()
