"""Run vethctl in the test's own process, and look at its output."""

from __future__ import annotations

import gc
import io
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest

from vethlib.cli import main

__all__ = ["Said", "Vethctl", "runner", "said"]


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def errors(self) -> list[dict[str, str]]:
        """The errors on stderr, each line in the common form of errors, without reasons."""
        found = [json.loads(line) for line in self.err.splitlines()]
        for one in found:
            reasons = one.pop("reasons", [])
            assert all(reason["code"] and isinstance(reason["about"], str) for reason in reasons)
            assert list(one) == ["error", "code", "field", "hint"]
            assert all(isinstance(value, str) for value in one.values())
            assert one["error"]
            assert one["code"]
        return found

    @property
    def reasons(self) -> list[tuple[str, str, str, str]]:
        """Each reason on stderr: the code and the field of its error, its own code, and its subject."""
        found = [json.loads(line) for line in self.err.splitlines()]
        return [
            (one["code"], one["field"], reason["code"], reason["about"])
            for one in found
            for reason in one.get("reasons", ())
        ]

    @property
    def error(self) -> dict[str, str]:
        (one,) = self.errors
        return one


Vethctl: TypeAlias = Callable[..., Said]


def runner(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Vethctl:
    """A function that runs a command line with `stdin` as its input, and asks nothing on the terminal of the tests."""
    monkeypatch.setattr("vethlib.cli.applying.question._open_terminal", lambda: None)

    def run(*argv: str, stdin: str = "") -> Said:
        capsys.readouterr()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        thresholds = gc.get_threshold()
        try:
            code = main(list(argv))
        finally:
            gc.set_threshold(*thresholds)  # an agent sets those of its process
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


def said(*argv: str) -> Said:
    """Run a command line without input, for code that has no fixture to run one with."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with redirect_stdout(out), redirect_stderr(err):
        code = main(list(argv))
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())
    return Said(code, *texts)
