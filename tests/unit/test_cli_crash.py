"""An unexpected exception is reported in one line with a hint; every class of errors has a hint, or needs none."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.commands import Vethctl
from vethlib import errors
from vethlib.agent.config.files import UnreadablePath
from vethlib.cli.commands.host import netns
from vethlib.cli.term import exits
from vethlib.cli.term.output import Output

# The messages of these state the cure themselves, or no hint would fit all of their occasions.
CURED_BY_ITS_MESSAGE = {"VethError", "InvalidValue", "NetlinkError", "SessionClosed", "BatchError", "DuplicateAddress"}


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(netns, "netns", fail)


def test_an_exception_that_is_none_of_ours_is_one_line_and_its_traceback_is_for_who_asks(
    vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    raising(monkeypatch, KeyError("a\nb"))
    said = vethctl("netns", "list", "--json")
    assert (said.code, said.out) == (2, "")
    assert (said.error["error"], said.error["code"]) == ("unexpected KeyError: 'a\\nb'", "unexpected")
    assert "VETHLIB_DEBUG=traceback" in said.error["hint"]
    assert "Traceback" not in vethctl("netns", "list").err
    monkeypatch.setenv("VETHLIB_DEBUG", "nl,traceback")
    lines = vethctl("netns", "list").err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert any(line.startswith('  File "') and line.endswith("in fail") for line in lines)
    assert lines[-2].startswith("vethctl: unexpected KeyError")
    said = vethctl("netns", "list", "--json")
    traceback = json.loads(said.err)["traceback"]
    assert traceback[0] == lines[0]


@pytest.mark.parametrize(
    ("error", "says", "hint"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "cannot write the output: No space", "free some space"),
        (OSError(errno.EMFILE, "Too many open files"), "no file descriptor is left: Too many", "raise ulimit -n"),
        (OSError(errno.EMFILE, "Too many open files", 4), "no file descriptor is left: Too many", "raise ulimit -n"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "no memory is left: Cannot", "ulimit -v"),
        (OSError(errno.ENOBUFS, "No buffer space"), "no memory is left: No buffer", "ulimit -v"),
        (MemoryError(), "no memory is left: Cannot", "ulimit -v"),
        (OSError(errno.EMFILE, "Too many open files", "/proc/x"), "/proc/x: Too many", "raise ulimit -n"),
        (OSError(errno.EFBIG, "File too large"), "cannot write the output: File too", "raise ulimit -f"),
        (errors.NetlinkError("cannot list /run/netns", errno=errno.EMFILE), "cannot list /run/netns", "ulimit -n"),
        (UnreadablePath("a", "Too many open files", errno.EMFILE), "cannot read a: Too many", "ulimit -n"),
        (OSError(errno.ENOENT, "No such file or directory", "/proc/x"), "/proc/x: No such file", ""),
        (OSError(errno.EIO, "Input/output error"), "cannot write the output: Input", ""),
        (OSError(errno.EADDRINUSE, "Address already in use"), "unexpected OSError: [Errno 98] Address", "report it"),
    ],
)
def test_what_the_system_refuses_is_told_as_what_it_is(
    vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch, error: Exception, says: str, hint: str
) -> None:
    raising(monkeypatch, error)
    said = vethctl("netns", "list", "--json")
    assert said.code == (1 if isinstance(error, UnreadablePath) else 2)
    assert said.error["error"].startswith(says)
    assert hint in said.error["hint"]
    assert bool(hint) == bool(said.error["hint"])


PROGRAM = """
import gc, sys, threading, warnings
from vethlib.cli import main
from vethlib.cli.commands.host import netns
class Bad:
    def __del__(self):
        raise RuntimeError("at its end")
def act(*_):
    warnings.warn("a socket was left open", ResourceWarning)
    warnings.warn("old", DeprecationWarning)
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    Bad()
    gc.collect()
    return 0
netns.netns = act
sys.argv = ["vethctl", "netns", "list", "--json"]
sys.exit(main())
"""


def test_what_python_itself_would_print_is_a_line_of_ours_or_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert [one["error"] for one in told] == [
        "unexpected ZeroDivisionError: division by zero",
        "unexpected RuntimeError: at its end",
    ]
    asked = subprocess.run(
        [sys.executable, "-W", "always", "-c", PROGRAM], capture_output=True, text=True, check=False
    ).stderr
    assert "ResourceWarning: a socket was left open" in asked


def classes(root: type[errors.VethError] = errors.VethError) -> Iterator[type[errors.VethError]]:
    yield root
    for one in root.__subclasses__():
        if one.__module__ == errors.__name__:
            yield from classes(one)


@pytest.mark.parametrize("kind", sorted({one.__name__ for one in classes()} - CURED_BY_ITS_MESSAGE))
def test_every_kind_of_error_comes_with_a_cure(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = getattr(errors, kind)("what, where and why")
    exits.report(Output(as_json=True), error)
    said = json.loads(capsys.readouterr().err)
    assert said["hint"]
    assert said["code"] not in ("", "veth-error")


@pytest.mark.parametrize(
    ("ref", "hint"),
    [
        ("netns:blue", "vethctl netns add blue"),
        ("blue", "vethctl netns add blue"),
        ("pid:42", ""),
        ("path:/x", ""),
        ("microservice:a", ""),
    ],
)
def test_only_a_named_namespace_can_be_made(ref: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    exits.report(Output(as_json=True), errors.NetnsNotFound("gone", netns=ref))
    said = json.loads(capsys.readouterr().err)["hint"]
    assert said.endswith(hint)
    assert bool(said) is bool(hint)
