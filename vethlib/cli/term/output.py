"""The output of a command: results on stdout, everything else on stderr; as lines for people, or as JSON.

If nobody reads the result (`| head`), the rest is discarded: the command continues, and its exit code stays the same.
Only a command that prints until it is stopped ends, by :meth:`Output.flush_to_reader`.
"""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from .streams import Unread, abandon, are_one, obeys_sequences
from .text import paint, printable, render, table_lines, without_password

if TYPE_CHECKING:
    from vethlib.agent.reasons import Reason

__all__ = ["Output", "abandon_stdout"]


class Output:
    """Prints results and messages. With `as_json`, both are JSON; `color` is auto, always or never."""

    def __init__(self, *, as_json: bool = False, color: str = "auto") -> None:
        self.as_json = as_json
        self.is_unread = False  # something on stderr could not be written
        self._has_reader = True  # whether stdout has a reader
        self._color = color
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A terminal without UTF-8 shows ⇄ as an escape sequence; without this, it would be an exception.
            sys.stdout.reconfigure(errors="backslashreplace")

    def _is_colored(self, stream: IO[str]) -> bool:
        if self._color == "auto":
            return obeys_sequences(stream) and not os.environ.get("NO_COLOR")
        return self._color == "always"

    def _write(self, text: str, stream: IO[str]) -> None:
        print(render(text, colored=self._is_colored(stream)), file=stream)

    def _complain(self, text: str) -> None:
        """Write a line to stderr. If that fails, the command continues and ends in the same way."""
        if sys.stderr is None:
            return  # main() was called by a program without stderr
        if are_one(sys.stdout, sys.stderr):
            self._flush_before()
        try:
            self._write(text, sys.stderr)
            sys.stderr.flush()
        except (OSError, ValueError):
            self.is_unread = True
            abandon(sys.stderr)

    @contextmanager
    def _for_reader(self) -> Iterator[None]:
        """Write to stdout, unless nobody reads it."""
        try:
            yield
        except Unread:
            raise
        except BrokenPipeError:
            self._has_reader = False
            abandon_stdout()

    def _flush_before(self) -> None:
        """Flush stdout, so that lines appear in the order in which they were written."""
        try:
            sys.stdout.flush()
        except Unread:
            raise
        except (OSError, ValueError):
            pass  # flushed again later, where errors are handled

    def rendered(self, text: str) -> str:
        """Render a line for stdout, for a caller that writes it itself."""
        return render(text, colored=self._is_colored(sys.stdout))

    def line(self, text: str = "") -> None:
        """Print a line of the result."""
        with self._for_reader():
            self._write(text, sys.stdout)

    def raw(self, text: str) -> None:
        """Print a text without rendering it."""
        with self._for_reader():
            sys.stdout.write(text)

    def document(self, text: str) -> None:
        """Print a result that is a whole document for other programs: in UTF-8, regardless of the locale."""
        with self._for_reader():
            sys.stdout.flush()
            if (buffer := getattr(sys.stdout, "buffer", None)) is None:
                sys.stdout.write(text)  # a stream of text, of a program that calls main()
            else:
                buffer.write(text.encode("utf-8", "backslashreplace"))

    @property
    def is_terminal(self) -> bool:
        """Whether the result is for people at a terminal."""
        return sys.stdout.isatty() and not self.as_json

    @property
    def can_redraw(self) -> bool:
        """Whether the result is for people at a terminal on which it can be drawn again and again."""
        return self.is_terminal and obeys_sequences(sys.stdout)

    def clear(self) -> None:
        """Clear the terminal (ECMA-48: cursor home, erase in display); on a dumb one, leave a line empty."""
        self.raw("\033[H\033[J" if obeys_sequences(sys.stdout) else "\n")

    def flush(self) -> None:
        """Flush stdout."""
        with self._for_reader():
            sys.stdout.flush()

    def flush_to_reader(self) -> None:
        """Flush stdout. Raises Unread if nobody reads it."""
        self.flush()
        if not self._has_reader:
            raise Unread(errno.EPIPE, os.strerror(errno.EPIPE))

    def json(self, value: Any) -> None:
        """Print the result as JSON. All ASCII, because a name may contain bytes that are not text."""
        with self._for_reader():
            json.dump(value, sys.stdout, indent=2)
            sys.stdout.write("\n")

    def remark(self, text: str) -> None:
        """Print a line on stderr, for people only."""
        if not self.as_json:
            self._complain(without_password(text))

    def warning(self, text: str, *, code: str = "warning", field: str = "", reasons: Sequence[Reason] = ()) -> None:
        """Report something that is accepted, but probably not intended."""
        if self.as_json:
            self.error(text, code=code, field=field, reasons=reasons)
        else:
            self._complain(f"{paint('warning:', 'warning')} {without_password(text)}")

    def error(
        self,
        message: str,
        *,
        code: str,
        field: str = "",
        hint: str = "",
        reasons: Sequence[Reason] = (),
        cause: tuple[str, str] | None = None,
        traceback: Sequence[str] = (),
    ) -> None:
        """Report an error and what to do about it; with JSON, as an object on a line, with the codes of the reasons.

        `cause` is the code of another reason, and what it is about; `traceback` are lines for developers.
        """
        message, field, hint = map(without_password, (message, field, hint))
        if self.as_json:
            value: dict[str, Any] = {"error": printable(message), "code": code}
            value |= {"field": printable(field), "hint": printable(hint)}
            listed = [reason._replace(about=printable(without_password(reason.about))).as_dict() for reason in reasons]
            if cause is not None:
                listed.append({"code": cause[0], "about": printable(without_password(cause[1]))})
            if listed:
                value["reasons"] = listed
            if traceback:
                value["traceback"] = [printable(without_password(line)) for line in traceback]
            self._complain(json.dumps(value))
            return
        for line in traceback:
            self._complain(without_password(line))
        self._complain(f"{paint('vethctl:', 'bad')} {message}")
        if hint and hint not in message:
            self._complain(f"  {hint}")

    def lines(self, lines: Iterable[str]) -> None:
        """Print lines of the result."""
        for text in lines:
            self.line(text)

    def table(self, rows: Iterable[Sequence[str]], *, roles: Sequence[str] = (), right: bool = False) -> None:
        """Print rows with aligned columns. `roles` has the meaning of each column; `right` aligns to the right."""
        self.lines(table_lines(rows, roles=roles, right=right))


def abandon_stdout() -> None:
    """Discard the rest of the output, because nobody reads it (`| head`)."""
    abandon(sys.stdout)
