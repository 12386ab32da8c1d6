"""vethctl without a stdout, stderr or stdin, or with streams that accept nothing: it does its work and ends well."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import IO

import pytest

from tests.live.applying import EXAMPLES, value
from tests.witness import ip, names, poll
from vethlib.agent.process.rundir import status_directory
from vethlib.agent.state import State
from vethlib.agent.status import Status
from vethlib.agent.stores.statuses import StatusFiles
from vethlib.cli import main
from vethlib.cli.arguments import COMMANDS

ROOT = Path(__file__).parents[2]
PAIR = str(EXAMPLES / "pair")

pytestmark = pytest.mark.usefixtures("home")

# What each command is given, so that it has something to print, or to complain of, and ends; and how it ends then.
LINES: dict[str, tuple[list[str], int]] = {
    "agent": (["--store", "memory:"], 1),
    "apply": ([f"{ROOT}/none"], 1),
    "completion": (["bash"], 0),
    "confirm": ([], 2),
    "create": (["a", "b"], 0),
    "del": (["a", "--store", "dir:/nowhere"], 2),
    "delete": (["nope"], 2),
    "demo": ([f"{ROOT}/none"], 1),
    "describe": (["nope"], 1),
    "diff": ([PAIR], 1),
    "doctor": ([], 0),
    "dump": (["--store", "dir:/nowhere"], 2),
    "get": (["a", "--store", "dir:/nowhere"], 2),
    "graph": ([PAIR, "--offline", "--dot"], 0),
    "help": ([], 0),
    "list": (["--store", "dir:/nowhere"], 2),
    "move": (["nope", "x@y"], 2),
    "netns": (["list", "--json"], 0),
    "put": (["-", "--store", "dir:/nowhere"], 1),
    "set": (["nope", "--mtu", "1400"], 2),
    "show": (["--all"], 0),
    "stats": (["nope"], 2),
    "status": ([], 2),
    "top": (["--count", "1", "--interval", "0.1", "--json"], 0),
    "validate": (["-"], 1),
    "watch": (["--states", "nope"], 1),
}


def as_python_has_it(number: int, *, by_lines: bool) -> IO[str] | None:
    try:
        return open(number, "w" if number else "r", buffering=1 if by_lines else -1, closefd=False)
    except OSError:
        return None


class Ended:
    """A vethctl in a forked child, whose streams `prepare` has done something to; `code` is its exit status.

    `by_lines`: each line of the result is written at once.
    """

    def __init__(self, argv: list[str], prepare: Callable[[], None], *, by_lines: bool = False) -> None:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                signal.alarm(120)
                null = os.open(os.devnull, os.O_RDWR)
                for number in range(3):
                    os.dup2(null, number)
                prepare()
                for number, name in enumerate(("stdin", "stdout", "stderr")):
                    setattr(sys, name, as_python_has_it(number, by_lines=by_lines or number == 2))
                sys.argv = ["vethctl", *argv]
                code = main()
                try:  # as the interpreter does at its end
                    sys.stdout.flush()
                    sys.stderr.flush()
                except OSError:
                    code = 120
                os._exit(code)
            except BaseException:
                os.write(write, traceback.format_exc().encode())
                os._exit(99)
        os.close(write)
        with open(read) as raised:
            self.raised = raised.read()
        self.code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """So that children need not."""
    for command in COMMANDS.values():
        import_module(f"vethlib.cli.commands.{command.module}")


def closed(*numbers: int) -> Callable[[], None]:
    def prepare() -> None:
        for number in numbers:
            os.close(number)

    return prepare


def full(*numbers: int) -> Callable[[], None]:
    def prepare() -> None:
        file = os.open("/dev/full", os.O_WRONLY)
        for number in numbers:
            os.dup2(file, number)
        os.close(file)

    return prepare


def unread(*numbers: int) -> Callable[[], None]:
    def prepare() -> None:
        read, write = os.pipe()
        os.close(read)
        for number in numbers:
            os.dup2(write, number)
        os.close(write)

    return prepare


def test_the_table_has_every_command() -> None:
    assert set(LINES) == set(COMMANDS)


@pytest.mark.parametrize("command", LINES)
def test_whatever_becomes_of_stderr_and_stdin_the_exit_status_stays(command: str) -> None:
    argv, code = LINES[command]
    for prepare in (closed(0, 2), full(2), unread(2)):
        ended = Ended([command, *argv], prepare)
        assert (ended.raised, ended.code) == ("", code)
        if command == "create":
            main(["delete", "a"])


@pytest.mark.parametrize("command", LINES)
def test_a_result_that_cannot_be_written_is_told_by_the_exit_status(command: str) -> None:
    argv, code = LINES[command]
    for prepare in (closed(0, 1, 2), full(1)):
        ended = Ended([command, *argv], prepare)
        assert ended.raised == ""
        assert ended.code in {code or 2, 2}  # diff prints, and so ends with 2
        if command == "create":
            assert names() == {"a", "b"}
            main(["delete", "a"])


@pytest.mark.parametrize("by_lines", [False, True], ids=["at the end", "by lines"])
@pytest.mark.parametrize("command", LINES)
def test_the_exit_status_stays_if_nobody_reads_the_result(command: str, by_lines: bool) -> None:
    argv, code = LINES[command]
    for numbers in ((1,), (1, 2)):
        for more in ([], ["--json"]):
            ended = Ended([command, *argv, *more], unread(*numbers), by_lines=by_lines)
            assert (ended.raised, ended.code) == ("", code)
            if command == "create":
                assert names() == {"a", "b"}
                main(["delete", "a"])


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (["apply", "failed.json"], 2),
        (["apply", "failed.json", "--dry-run"], 2),
        (["apply", "pending.json"], 3),
        (["validate", "store"], 1),
        (["diff", "failed.json", "--json"], 1),
        (["list", "--store", "dir:store"], 1),
        (["dump", "--store", "dir:store"], 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_all_is_done_and_told_although_nobody_reads_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: list[str], code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    ip("link", "add", "foreign", "type", "veth", "peer", "name", "other")
    pairs = [one for number in range(200) for one in both(f"x{number}", f"y{number}")]
    Path("failed.json").write_text(json.dumps([*pairs, *both("foreign", "z")]))
    Path("pending.json").write_text(json.dumps([*pairs, value("waiting", "for")]))
    Path("store").mkdir()
    for pair in pairs:
        Path("store", f"{pair['name']}.json").write_text(json.dumps(pair))
    Path("store", "invalid.json").write_text(json.dumps(value("invalid", "of", mtu=-1)))
    for by_lines in (False, True):
        ended = Ended(line, unread(1), by_lines=by_lines)
        assert (ended.raised, ended.code) == ("", code)
    if line[0] == "apply" and line[-1] != "--dry-run":
        assert len(names()) == 402


def both(a: str, b: str) -> list[dict[str, object]]:
    return [value(a, b), value(b, a)]


@pytest.mark.parametrize(
    "line",
    [
        ["watch", "--initial"],
        ["status", "--watch"],
        ["stats", "--watch", "--interval", "0.1"],
        ["top", "--interval", "0.1", "--json"],
        ["graph", "--watch"],
    ],
    ids=" ".join,
)
def test_what_prints_without_end_ends_with_its_reader(line: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vethlib.cli.term.output.Output.is_terminal", line[0] == "graph")
    main(["create", "a", "b"])
    publish_a_status()
    for by_lines in (False, True):
        ended = Ended(line, unread(1), by_lines=by_lines)
        assert (ended.raised, ended.code) == ("", 0)


def publish_a_status() -> None:
    directory = status_directory("vpp1")
    os.makedirs(directory)
    StatusFiles(directory).publish({"a": Status("a", State.CONFIGURED, "", 1.0, host_name="a", peer="b")})


def test_help_that_cannot_be_written_is_told_but_not_to_a_reader_that_left() -> None:
    assert Ended(["show", "--help"], full(1)).code == 2
    assert Ended(["show", "--help"], unread(1)).code == 0
    assert Ended(["--version"], full(1, 2)).code == 2


@pytest.mark.parametrize("number", [1, 2], ids=["stdout", "stderr"])
def test_a_slow_reader_of_a_pipe_in_non_blocking_mode_gets_everything(tmp_path: Path, number: int) -> None:
    names = [f"x{each}" for each in range(300)]
    (tmp_path / "x.json").write_text(json.dumps([value(name, "y", mtu=1400 if number == 1 else -1) for name in names]))
    command = ["dump", "--store", f"dir:{tmp_path}"] if number == 1 else ["apply", str(tmp_path)]
    read, write = os.pipe()
    room = fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(write, False)
    with subprocess.Popen(
        [sys.executable, "-m", "vethlib", *command],
        stdout=write if number == 1 else subprocess.DEVNULL,
        stderr=write if number == 2 else subprocess.DEVNULL,
        cwd=ROOT,
    ) as process:
        os.close(write)
        assert poll(lambda: process.poll() is not None or unread_bytes(read) > room * 3 // 4)
        with open(read) as file:
            text = file.read()
    assert all(f'"{name}"' in text or f" {name}:" in text for name in names)


def unread_bytes(pipe: int) -> int:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_what_goes_to_one_place_appears_in_the_order_in_which_it_was_written() -> None:
    program = "from vethlib.cli.term.output import Output; o = Output(); "
    program += "o.line('1'); o.remark('2'); o.line('3'); o.error('4', code='x')"
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    assert done.stdout.splitlines() == ["1", "2", "3", "vethctl: 4"]


def test_what_is_opened_never_gets_the_number_of_a_standard_stream() -> None:
    program = (
        "import os; from vethlib.cli import main; from vethlib.cli.term.streams import open_missing; "
        "main(['x']); open_missing(); print(os.pipe()[0])"
    )
    for redirection in (">&- 2>&- <&-", "2>&- <&-", "<&-"):
        command = f'"$0" -c "$1; os._exit(int(min(os.pipe()) < 3))" {redirection}'
        done = subprocess.run(["sh", "-c", command, sys.executable, program], cwd=ROOT, check=False)
        assert done.returncode == 0


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&-", ">&- 2>&-", ">&- 2>&- <&-"])
def test_an_interpreter_that_was_started_without_streams_ends_well(redirection: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$0" -m vethlib show --all {redirection}', sys.executable],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == (2 if ">&- " in f"{redirection} ".replace("2>&- ", "") else 0)
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr
