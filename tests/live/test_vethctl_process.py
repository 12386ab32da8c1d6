"""vethctl as a separate process: exit codes, signals, pipes, colours, and the demo, which leaves nothing behind."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.live.applying import EXAMPLES, value
from tests.programs import attended
from tests.witness import host_state, ip, names, poll
from vethlib import ns

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "vethlib"]
PAIR = str(EXAMPLES / "pair")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("home")]


def vethctl(
    *argv: str, env: Mapping[str, str] | None = None, command: Sequence[str] = COMMAND, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    environment = {key: text for key, text in os.environ.items() if key != "NO_COLOR"} | dict(env or {})
    return subprocess.run(
        [*command, *argv], input=stdin, capture_output=True, text=True, check=False, env=environment, cwd=ROOT
    )


def test_exit_codes_reach_the_shell() -> None:
    assert vethctl("diff", PAIR).returncode == 1
    assert vethctl("apply", PAIR).returncode == 0
    assert vethctl("diff", PAIR).returncode == 0
    assert vethctl("appyl", PAIR).returncode == 1
    assert vethctl("delete", "nope").returncode == 2
    assert vethctl("apply", "-", stdin=json.dumps(value("a", "b"))).returncode == 3
    assert names("ns1") == {"veth1"}


def test_results_go_to_stdout_and_errors_to_stderr() -> None:
    done = vethctl("netns", "add", "ns1", "--json")
    assert (json.loads(done.stdout), done.stderr) == ([{"name": "ns1"}], "")
    done = vethctl("netns", "add", "ns1", "--json")
    assert (done.stdout, json.loads(done.stderr)["code"]) == ("", "netns-exists")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    for command in (["show"], ["--help"], ["show", "--json"]):
        vethctl("apply", str(EXAMPLES / "star"))
        piped = f"{sys.executable} -m vethlib {' '.join(command)} | head -1; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", piped], capture_output=True, text=True, check=True, cwd=ROOT)
        assert done.stderr == ""
        assert done.stdout.splitlines()[1:] == ["0"]


def test_a_full_disk_behind_stdout_is_an_error() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "doctor"], stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT
        )
    assert done.returncode == 2
    assert os.strerror(errno.ENOSPC) in done.stderr.splitlines()[0]


def test_an_output_that_is_not_utf_8_gets_escapes() -> None:
    vethctl("create", "a", "b")
    done = vethctl("show", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert r"a \u21c4 b" in done.stdout


def test_no_color_keeps_a_terminal_plain_and_a_flag_wins() -> None:
    def on_a_terminal(*argv: str, **env: str) -> str:
        ours, theirs = os.openpty()
        environment = {key: text for key, text in os.environ.items() if key != "NO_COLOR"} | {"TERM": "xterm"} | env
        with os.fdopen(ours, "rb", buffering=0) as terminal:
            subprocess.run([*COMMAND, *argv], stdout=theirs, stderr=theirs, check=False, env=environment, cwd=ROOT)
            os.close(theirs)
            return terminal.read(4096).decode()

    assert "\033[31mvethctl:\033[0m" in on_a_terminal("delete", "nope")
    assert "\033" not in on_a_terminal("delete", "nope", NO_COLOR="1")
    assert "\033" not in on_a_terminal("delete", "nope", TERM="dumb")
    assert "\033" not in on_a_terminal("delete", "nope", "--color=never")
    assert "\033[31m" in on_a_terminal("delete", "nope", "--color=always", NO_COLOR="1")


def has_links(name: str) -> bool:
    try:
        return bool(names(name))
    except RuntimeError:  # between its file and its mount it is no namespace yet
        return False


def test_ctrl_c_leaves_nothing_half_built(tmp_path: Path) -> None:
    values = [
        one
        for number in range(3000)
        for one in (value(f"a{number}", f"b{number}", "ns1"), value(f"b{number}", f"a{number}", "ns1"))
    ]
    (tmp_path / "many.json").write_text(json.dumps(values))
    with attended(
        subprocess.Popen([*COMMAND, "apply", str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    ) as process:
        assert poll(lambda: ns.names() == ["ns1"] and has_links("ns1"))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert (process.returncode, err) == (130, "")
    assert ns.names() == []


BLOCKING = [
    sys.executable,
    "-c",
    "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"
    "os.execvp(sys.argv[1], sys.argv[1:])",
]
"""Start a program with all signals blocked, as a launcher does that receives them with sigwait() or signalfd."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize(
    "command", [["agent", "--store", "dir:STORE"], ["apply", "--try", "1h", "STORE"]], ids=" ".join
)
def test_a_signal_that_the_parent_has_blocked_ends_what_handles_it(
    tmp_path: Path, command: list[str], number: signal.Signals
) -> None:
    for each in (value("veth1", "veth2"), value("veth2", "veth1")):
        (tmp_path / f"{each['name']}.json").write_text(json.dumps(each))
    argv = [*BLOCKING, *COMMAND, *(word.replace("STORE", str(tmp_path)) for word in command)]
    silent = subprocess.DEVNULL
    started = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=silent, stderr=silent, cwd=ROOT)
    with attended(started) as process:
        assert poll(lambda: names() == {"veth1", "veth2"})
        process.send_signal(number)
        if command[0] == "agent" and number == signal.SIGHUP:  # which makes it read its store again
            process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert command[0] == "agent" or names() == set()


@pytest.mark.parametrize("command", ["watch", "stats --watch"])
def test_a_signal_that_the_parent_has_blocked_ends_what_watches(command: str) -> None:
    argv = [*BLOCKING, *COMMAND, *command.split()]
    with attended(subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)) as process:
        assert poll(lambda: b"pthread_sigmask" not in Path(f"/proc/{process.pid}/cmdline").read_bytes())
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGTERM)


def test_programs_in_a_namespace_have_the_signals_blocked_that_their_parent_has_blocked() -> None:
    ip("netns", "add", "blue")
    show = [*BLOCKING, *COMMAND, "netns", "exec", "blue", "grep", "SigBlk", "/proc/self/status"]
    done = subprocess.run(show, capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout.split()[1], 16) & 1 << (signal.SIGTERM - 1)


def host_as_others_see_it() -> tuple[str, list[str], object]:
    return Path("/proc/self/mountinfo").read_text(), ns.names(), [one["ifname"] for one in ip("link")]


ORDINARY = ["setpriv", "--bounding-set=-sys_admin,-net_admin", *COMMAND]


@pytest.mark.parametrize("command", [COMMAND, ORDINARY], ids=["root", "no capabilities"])
def test_the_demo_proves_the_main_job_and_leaves_nothing_behind(command: list[str]) -> None:
    before = host_as_others_see_it()
    done = vethctl("demo", command=command)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "examples/pair" in lines[0]
    assert lines[2].startswith("  ┌─ ns1 ─")
    assert "veth1@ns1 192.168.22.1 ⇄ veth2@ns2 192.168.22.2: 1000 of 1000 " in lines[6]
    assert lines[7].startswith("applied again: ")
    assert host_as_others_see_it() == before


def test_the_demo_sums_up_the_traffic_of_many_pairs() -> None:
    done = vethctl("demo", str(EXAMPLES / "star"))
    assert done.returncode == 0
    assert "20 pairs: 6000 of 6000 " in done.stdout
    leaves = [line.split("┌─ ")[-1].split()[0] for line in done.stdout.splitlines() if "┌─ leaf" in line]
    assert leaves == [f"leaf{number}" for number in range(1, 21)]


def test_the_demo_prints_json() -> None:
    done = vethctl("demo", "--json", str(EXAMPLES / "chain"))
    said = json.loads(done.stdout)
    assert list(said) == ["operations", "seconds", "traffic", "second_apply"]
    assert [one["received"] == one["sent"] > 0 for one in said["traffic"]] == [True, True]
    assert said["second_apply"] == []


def test_the_demo_takes_pairs_of_ipv6_and_pairs_without_addresses() -> None:
    six = [value("a", "b", "n1", ip_addresses=["fd00::1/64"]), value("b", "a", ip_addresses=["fd00::2/64"])]
    done = vethctl("demo", "-", stdin=json.dumps(six))
    assert done.returncode == 0
    # Which end is told first is as the namespaces' inodes happen to sort.
    ends = ("b@home fd00::2", "a@n1 fd00::1")
    assert any(f"{one} ⇄ {other}: 1000 of 1000" in done.stdout for one, other in (ends, ends[::-1]))
    done = vethctl("demo", "-", stdin=json.dumps([value("a", "b"), value("b", "a", enabled=False)]))
    assert done.returncode == 0
    assert "no traffic: " in done.stdout


def test_the_demo_says_why_it_cannot_build_what_it_was_given() -> None:
    done = vethctl("demo", "-", "--json", stdin=json.dumps(value("a", "b")))
    error = json.loads(done.stderr)
    assert (done.returncode, error["code"], error["field"]) == (3, "pending", "a")
    assert [reason["code"] for reason in error["reasons"]] == ["peer-not-configured"]
    done = vethctl("demo", "-", "--json", stdin="[")
    assert (done.returncode, json.loads(done.stderr)["code"]) == (1, "invalid-value")


@pytest.mark.parametrize("command", [COMMAND, ORDINARY], ids=["root", "no capabilities"])
def test_the_doctor_says_what_is_missing(command: list[str]) -> None:
    before = host_as_others_see_it()
    done = vethctl("doctor", command=command)
    last = done.stdout.splitlines()[-1]
    if command is COMMAND:
        assert (done.returncode, last.partition(":")[0]) == (0, "ready")
    else:
        assert (done.returncode, last.partition(": ")[0], last.count("3")) == (2, "not ready", 1)
        assert "✗ NET_ADMIN" in done.stdout
        assert "AmbientCapabilities=CAP_NET_ADMIN" in done.stdout
    assert host_as_others_see_it() == before


def test_the_version_is_printed() -> None:
    from importlib.metadata import version

    assert vethctl("--version").stdout == f"vethctl {version('vethlib')}\n"


def test_help_and_usage_errors_import_neither_protobuf_nor_pyroute2() -> None:
    for argv in (["--help"], ["apply", "--help"], ["bogus"], ["show", "x"]):
        script = f"import sys; from vethlib.cli import main; main({argv!r}); print(*sys.modules)"
        done = vethctl(command=[sys.executable, "-c", script])
        modules = {name.split(".")[0] for name in done.stdout.split()}
        assert modules.isdisjoint({"google", "pyroute2"})


_HANGUP = [signal.SIGHUP, signal.SIGTERM]  # a second signal may follow at once
CUT_SHORT = """
import os, signal, sys
from importlib import import_module
from vethlib.cli import main
numbers, (module, owner, name) = map(int, sys.argv.pop(1).split(",")), sys.argv.pop(1).split()
holder = getattr(import_module(module), owner) if owner != "-" else import_module(module)
work = getattr(holder, name)
def cut_short(*args, **how):
    result = work(*args, **how)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    for number in numbers:
        os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
    return result
setattr(holder, name, cut_short)
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("numbers", "after", "command"),
    [
        ([signal.SIGTERM], "vethlib.session.core.namespaces Namespaces begin", "create a b@ns1 --a-addr 10.0.0.1/24"),
        (_HANGUP, "vethlib.session.core.namespaces Namespaces begin", "create a b@ns1 --a-addr 10.0.0.1/24"),
        (_HANGUP, "vethlib.session.core.namespaces Namespaces run", "set x --mtu 1400 --addr 10.0.0.1/24"),
        ([signal.SIGTERM], "vethlib.ns.named - make_file", "netns add ns2"),
        ([signal.SIGTERM], "vethlib.agent.stores.files.editing Replacement write", f"put {PAIR} --store dir:STORE"),
    ],
    ids=["create-SIGTERM", "create-SIGHUP", "set", "netns add", "put"],
)
def test_what_a_signal_cuts_short_is_undone(
    numbers: list[signal.Signals], after: str, command: str, tmp_path: Path
) -> None:
    ns.Netns.create("ns1").close()
    ip("link", "add", "x", "type", "veth", "peer", "name", "y")
    before = host_state()
    args = command.replace("STORE", str(tmp_path)).split()
    given = ",".join(str(int(number)) for number in numbers)
    done = vethctl(given, after, *args, command=[sys.executable, "-c", CUT_SHORT])
    assert (done.returncode, done.stdout, done.stderr) == (-numbers[0], "", "")
    assert (host_state(), ns.names()) == (before, ["ns1"])
    assert set(os.listdir(tmp_path)) <= {".vethlib.lock"}
