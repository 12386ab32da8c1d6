"""The way out of a command: results to stdout, everything else to stderr; as lines for people, or as JSON."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import IO, Any

from .text import paint, printable, render, width, without_password

__all__ = ["Output", "abandon_stdout"]


class Output:
    """What a command says. With `as_json`, the result and every error are JSON; `color` is auto, always or never."""

    def __init__(self, *, as_json: bool = False, color: str = "auto") -> None:
        self.as_json = as_json
        self._color = color
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A terminal that is not UTF-8 gets ⇄ as an escape, instead of us an exception.
            sys.stdout.reconfigure(errors="backslashreplace")

    def _is_colored(self, stream: IO[str]) -> bool:
        if self._color == "auto":
            return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return self._color == "always"

    def _write(self, text: str, stream: IO[str]) -> None:
        print(render(text, colored=self._is_colored(stream)), file=stream)

    def rendered(self, text: str) -> str:
        """A line as it would be written, for who writes it to stdout otherwise."""
        return render(text, colored=self._is_colored(sys.stdout))

    def line(self, text: str = "") -> None:
        """A line of the result."""
        self._write(text, sys.stdout)

    def raw(self, text: str) -> None:
        """A result that is a document of its own."""
        sys.stdout.write(text)

    @property
    def is_terminal(self) -> bool:
        """Whether people watch the result as it comes."""
        return sys.stdout.isatty() and not self.as_json

    def clear(self) -> None:
        """Begin anew at the top of an empty terminal (ECMA-48: cursor home, erase in display)."""
        sys.stdout.write("\033[H\033[J")

    def flush(self) -> None:
        """Let it be seen now."""
        sys.stdout.flush()

    def json(self, value: Any) -> None:
        """The result, where JSON was asked for. All ASCII: a name may hold bytes that are no text."""
        json.dump(value, sys.stdout, indent=2)
        sys.stdout.write("\n")

    def remark(self, text: str) -> None:
        """A line beside the result, for people only."""
        if not self.as_json:
            self._write(without_password(text), sys.stderr)

    def warning(self, text: str) -> None:
        """Something that is accepted, but hardly meant."""
        if self.as_json:
            self.error(text, code="warning")
        else:
            self._write(f"{paint('warning:', 'warning')} {without_password(text)}", sys.stderr)

    def error(self, message: str, *, code: str, field: str = "", hint: str = "") -> None:
        """What went wrong and its cure: with JSON an object on a line of its own, for each error."""
        message, field, hint = map(without_password, (message, field, hint))
        if self.as_json:
            value = {"error": printable(message), "code": code, "field": printable(field), "hint": printable(hint)}
            print(json.dumps(value), file=sys.stderr)
            return
        self._write(f"{paint('vethctl:', 'bad')} {message}", sys.stderr)
        if hint and hint not in message:
            self._write(f"  {hint}", sys.stderr)

    def table(self, rows: Iterable[Sequence[str]], *, roles: Sequence[str] = (), right: bool = False) -> None:
        """Rows in columns as wide as they need. `roles` has the meaning of each column; `right` aligns them so."""
        lines = [list(row) for row in rows]
        widths = [max(map(width, column)) for column in zip(*lines, strict=True)]
        for row in lines:
            cells = []
            for number, (cell, wide) in enumerate(zip(row, widths, strict=True)):
                painted = paint(cell, roles[number] if number < len(roles) else "")
                padding = " " * (wide - width(cell))
                cells.append(padding + painted if right else painted + padding)
            self.line("  ".join(cells).rstrip())


def abandon_stdout() -> None:
    """Nobody reads it any more (`| head`); Python would complain once more when it flushes stdout at exit."""
    try:
        stdout = sys.stdout.fileno()
    except OSError:
        return  # main() was called with something else for a stdout
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, stdout)
    finally:
        os.close(nowhere)
