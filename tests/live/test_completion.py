"""Existing names are offered at a TAB, by the shells themselves, each on a terminal."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands import runner
from tests.programs import attended
from tests.witness import ip, names, poll, seen
from vethlib import End, Netns, Session, Veth

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("home")

# What starts each of them with nothing of the user's own, and what has it complete.
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source <(vethctl completion bash)"),
    "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit; compinit -u -D; source <(vethctl completion zsh)"),
    "fish": (["fish", "--no-config", "-i"], "vethctl completion fish | source"),
}

Type = Callable[[str], None]


@pytest.fixture(params=list(SHELLS))
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Type]:
    """A shell on a terminal, in tmp_path; what is typed there."""
    command, setup = SHELLS[request.param]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed: apt-get install {command[0]}")
    ours, theirs = pty.openpty()
    kept = ("LANG", "LC_ALL", "PYTHONPATH", "COVERAGE_PROCESS_START")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "TERM": "xterm", "INPUTRC": "/dev/null"}
    environment["PATH"] = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    # A terminal of its own, which it can be interactive on.
    process = subprocess.Popen(
        ["setsid", "--ctty", *command], stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path, env=environment
    )
    os.close(theirs)
    screen = bytearray()
    reader = threading.Thread(target=_read_all, args=(ours, screen))
    reader.start()

    def type_(text: str) -> None:
        os.write(ours, text.encode())

    try:
        type_(f"{setup}\n")
        type_("echo it is read''y\n")
        assert poll(lambda: b"it is ready" in screen), screen.decode(errors="replace")
        yield type_
    finally:
        process.kill()
        process.wait()
        reader.join()
        os.close(ours)
        if request.session.testsfailed:
            print(screen.decode(errors="replace"))


def _read_all(terminal: int, screen: bytearray) -> None:
    try:
        while text := os.read(terminal, 4096):
            screen.extend(text)
    except OSError:
        pass  # EIO: the shell has ended


def test_a_shell_completes_commands_links_namespaces_flags_and_files(shell: Type, tmp_path: Path) -> None:
    for name in ("blue", "bluegreen"):
        Netns.create(name).close()
    with Session() as session:
        session.create(Veth(End("long-name", netns="bluegreen"), End("other")))
    (tmp_path / "a pair").mkdir()
    for file in (ROOT / "examples" / "pair").iterdir():
        shutil.copy(file, tmp_path / "a pair")
    # A command, a flag, a namespace behind '@'; of two that begin alike the rest is typed.
    shell("vethctl crea\tqa@bluegr\tqb --mt\t1400\n")
    assert poll(lambda: "qa" in names("bluegreen"))
    assert seen("qa", "bluegreen")["mtu"] == seen("qb")["mtu"] == 1400
    shell("vethctl dele\tlon\t\n")
    assert poll(lambda: "long-name" not in names("bluegreen"))
    # A name with a space in it, which the shell knows how to write, and one behind "dir:", without a space after it.
    (tmp_path / "stored").mkdir()
    shell(f"vethctl put a\t --store dir:{tmp_path}/sto\t\n")
    assert poll(lambda: len(list((tmp_path / "stored").glob("*.json"))) == 2)


def test_names_that_are_there_are_offered(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, make_netns: Callable[..., None]
) -> None:
    make_netns("ns1", "ns2", "ns10")
    with Session() as session:
        session.create(Veth(End("veth1", netns="ns1"), End("veth2", netns="ns2")))
        session.create(Veth(End("veth1"), End("veth9", netns="ns10")))
    vethctl = runner(capsys, monkeypatch)

    def complete(*line: str) -> list[str]:
        return [answer.split("\t")[0] for answer in vethctl("complete", "--", *line).out.splitlines()]

    assert complete("delete", "") == ["veth1", "veth1@ns1", "veth2@ns2", "veth9@ns10"]
    assert complete("delete", "veth1@") == ["veth1@ns1"]
    assert complete("show", "@") == ["@ns1", "@ns2", "@ns10"]
    assert complete("move", "veth1@ns1", "n") == ["ns1", "ns2", "ns10"]
    assert complete("move", "veth1@ns1", "netns:ns2") == ["netns:ns2"]
    assert complete("netns", "del", "ns1", "") == ["ns2", "ns10"]
    assert complete("create", "a@ns1") == ["a@ns1", "a@ns10"]
    with attended(subprocess.Popen(["ip", "netns", "exec", "ns1", "sleep", "60"])) as process:
        assert poll(lambda: f"a@pid:{process.pid}" in complete("create", "a@pid:"))
        process.kill()
    assert {link["ifname"] for link in ip("link", netns="ns1")} == {"lo", "veth1"}


def test_a_meaning_that_the_terminal_has_no_letters_for_is_escaped(
    make_netns: Callable[..., None], tmp_path: Path
) -> None:
    make_netns("ns1")
    program = shutil.copy(shutil.which("sleep") or "", tmp_path / "→")
    with attended(subprocess.Popen(["ip", "netns", "exec", "ns1", program, "60"])) as process:
        assert poll(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "→\n")
        done = subprocess.run(
            [sys.executable, "-m", "vethlib", "complete", "--", "create", "a@pid:"],
            env=os.environ | {"PYTHONIOENCODING": "latin-1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        process.kill()
    assert (done.returncode, done.stderr) == (0, "")
    assert f"a@pid:{process.pid}\t\\u2192" in done.stdout.splitlines()
