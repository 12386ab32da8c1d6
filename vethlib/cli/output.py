"""What a command says, and how: colour as `ip` does it, JSON, errors in one form, progress on a terminal.

Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import IO, Any

__all__ = ["Output", "Progress"]

_SGR = re.compile(r"(\033\[[0-9;]*m)")
_CODES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}


class Output:
    """The way out of one command."""

    def __init__(self, *, as_json: bool = False, color: str = "auto", stdout: IO[str] | None = None) -> None:
        self.as_json = as_json
        self.stdout = stdout or sys.stdout
        self._color = color

    def _colored(self, stream: IO[str]) -> bool:
        if self._color != "auto":
            return self._color == "always"
        return not os.environ.get("NO_COLOR") and stream.isatty() and os.environ.get("TERM") != "dumb"

    def paint(self, text: object, *styles: str, stream: IO[str] | None = None) -> str:
        """`text` in the styles ("bold", "red", …), where the stream shows them."""
        if not text or not styles or not self._colored(stream or self.stdout):
            return str(text)
        return f"\033[{';'.join(_CODES[style] for style in styles)}m{text}\033[0m"

    def line(self, text: str = "") -> None:
        """A line of the result. A link's name may hold bytes that are no text; they are shown as \\xNN."""
        print(printable(text), file=self.stdout)

    def json(self, value: Any) -> None:
        """The result, where JSON was asked for."""
        json.dump(value, self.stdout, indent=2, ensure_ascii=not _is_utf8(self.stdout))
        self.stdout.write("\n")

    def note(self, text: str, style: str = "yellow", mark: str = "warning") -> None:
        """A remark on stderr."""
        print(f"{self.paint(mark + ':', style, 'bold', stream=sys.stderr)} {printable(text)}", file=sys.stderr)

    def error(self, message: str, *, code: str, field: str = "", hint: str = "") -> None:
        """Say what went wrong: {"error", "code", "field", "hint"} with --json, else a line and its cure."""
        if self.as_json:
            value = {"error": printable(message), "code": code, "field": field, "hint": printable(hint)}
            print(json.dumps(value), file=sys.stderr)
            return
        self.note(message, "red", "vethctl")
        if hint and hint not in message:
            print(f"  {printable(hint)}", file=sys.stderr)

    def table(self, rows: Iterable[Sequence[str]], *, styles: Sequence[Sequence[str]] = ()) -> None:
        """Rows in columns as wide as they need; `styles` has each column's."""
        lines = [[printable(cell) for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for row in lines:
            cells = []
            for number, (cell, width) in enumerate(zip(row, widths, strict=True)):
                style = styles[number] if number < len(styles) else ()
                padding = " " * (width - len(cell)) if number + 1 < len(row) else ""
                cells.append(self.paint(cell, *style) + padding)
            self.line("  ".join(cells).rstrip())


def printable(text: str) -> str:
    """`text` with what a terminal cannot show, or should not obey, escaped; our own colours stay."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(
        piece if _SGR.fullmatch(piece) else "".join(c if c == "\n" or c.isprintable() else repr(c)[1:-1] for c in piece)
        for piece in _SGR.split(text)
    )


def _is_utf8(stream: IO[str]) -> bool:
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"


class Progress:
    """A line on stderr that says how far long work is; nothing where stderr is no terminal."""

    _BAR = 24

    def __init__(self) -> None:
        self._shown = False
        self._wanted = sys.stderr.isatty()

    def __call__(self, what: str, done: int, total: int) -> None:
        """`done` of `total` are through."""
        if not self._wanted or total < 50:
            return
        filled = self._BAR * done // max(total, 1)
        bar = "━" * filled + "╌" * (self._BAR - filled)
        sys.stderr.write(f"\r{what:>8} {bar} {done}/{total}")
        sys.stderr.flush()
        self._shown = True

    def clear(self) -> None:
        """Take the line away again."""
        if self._shown:
            sys.stderr.write("\r\033[K")
            self._shown = False
