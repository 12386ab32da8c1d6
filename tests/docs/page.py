"""The runnable parts of a page of the documentation: the fenced blocks of a Markdown file.

What a block is, its fence says:

* ``console``: a line that begins with ``$`` and a space is run by bash; ``>`` and a space continue it. What follows
  up to the next one is what it prints: ``…`` in a line stands for anything, a line of nothing but ``…`` any number of
  lines; where nothing follows, its output is not looked at. It ends with 0, or ``  # exits N`` says with what. One that
  ends with ``&`` runs on beside those that follow; it has ten seconds to print what is shown. So has a command of
  vethctl that only looks, status or show, which is repeated until then.
* ``python``: a script, in the directory and the namespaces of the page; the named namespaces that it makes go with it.
  With functions that are called ``test_…`` it is a file for pytest, and all of them pass; such files run last. A block
  of ``text`` right after a script is what it prints, told as above.
* Any other is not run.

A comment ``<!-- not run: REASON -->`` on the line before a block leaves it out.
``<!-- needs: NAME … -->`` in the page's first lines says what it takes beyond a kernel: programs that are installed, or
``engine``, a Docker Engine that DOCKER_HOST names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PAGES", "ROOT", "Block", "Page", "Step", "differs", "pages"]

ROOT = Path(__file__).parents[2]

RUN_LANGUAGES = ("console", "python")
_SHELL_LANGUAGES = ("bash", "sh", "shell", "zsh", "shell-session", "sh-session")
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->\s*$")
_NEEDS = re.compile(r"<!-- needs: (.+) -->\s*$", re.MULTILINE)
_EXITS = re.compile(r"\s*# exits (\d+)\s*$")
_BACKGROUND = re.compile(r"(?<!&)&\s*(?:#.*)?$")


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is run: where in the page, what, what it prints ("" for anything), how it ends."""

    line: int
    command: str
    expected: str = ""
    exits: int = 0
    background: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: the line of its fence, its language, its text; why it is not run, if so; what it is to print."""

    line: int
    language: str
    text: str
    not_run: str = ""
    prints: str = ""

    @property
    def runs(self) -> bool:
        """Whether it is one of those that are run."""
        return self.language in RUN_LANGUAGES and not self.not_run

    @property
    def is_shell(self) -> bool:
        """Whether it is a shell's, but of a language that is never run: it should be ``console``."""
        return self.language in _SHELL_LANGUAGES

    def steps(self) -> Iterator[Step]:
        """What is run of a block of ``console``. ValueError, if it begins with what nobody has printed."""
        lines = self.text.splitlines()
        at = 0
        while at < len(lines):
            start = at
            if not lines[at].startswith("$ "):
                raise ValueError(f"line {self.line + 1 + at}: output without a command before it: {lines[at]!r}")
            command = [lines[at][2:]]
            at += 1
            while at < len(lines) and (lines[at].startswith("> ") or lines[at] == ">"):
                command.append(lines[at][2:])
                at += 1
            printed = []
            while at < len(lines) and not lines[at].startswith("$ "):
                printed.append(lines[at])
                at += 1
            yield _step(self.line + 1 + start, "\n".join(command), "\n".join(printed).rstrip())

    @property
    def tests(self) -> int:
        """How many tests a block of ``python`` has, if it is a file for pytest."""
        return len(re.findall(r"^(?:async )?def test_", self.text, re.MULTILINE))


def _step(line: int, command: str, expected: str) -> Step:
    exits = 0
    if found := _EXITS.search(command):
        exits, command = int(found[1]), command[: found.start()]
    return Step(line, command, expected, exits, bool(_BACKGROUND.search(command.splitlines()[-1])))


@dataclass(frozen=True, slots=True)
class Page:
    """A Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        """Its path from the root of the project."""
        return str(self.path.relative_to(ROOT)) if self.path.is_relative_to(ROOT) else self.path.name

    @property
    def text(self) -> str:
        """All of it."""
        return self.path.read_text()

    @property
    def needs(self) -> frozenset[str]:
        """What it takes beyond a kernel and this project."""
        found = _NEEDS.search("\n".join(self.text.splitlines()[:5]))
        return frozenset(found[1].split()) if found else frozenset()

    def blocks(self) -> Iterator[Block]:
        """Its fenced blocks, in order. ValueError, if one is not closed."""
        lines = self.text.splitlines()
        found: list[Block] = []
        at = 0
        while at < len(lines):
            fence = re.match(r"(`{3,})([\w-]*)\s*$", lines[at])
            if not fence:
                at += 1
                continue
            ticks, language = fence.groups()
            try:
                end = lines.index(ticks, at + 1)
            except ValueError:
                raise ValueError(f"{self.name}:{at + 1}: a block that nothing closes") from None
            comment = _NOT_RUN.match(lines[at - 1]) if at else None
            text = "\n".join(lines[at + 1 : end])
            last = found[-1] if found else None
            if language == "text" and last and last.language == "python" and not last.prints:
                between = lines[last.line + last.text.count("\n") + 2 : at]
                if not any(line.strip() for line in between):
                    found[-1] = Block(last.line, last.language, last.text, last.not_run, text)
                    at = end + 1
                    continue
            found.append(Block(at + 1, language, text, comment[1] if comment else ""))
            at = end + 1
        yield from found


def differs(expected: str, printed: str) -> bool:
    """Whether this is not what should have been printed."""
    pattern = []
    for line in expected.splitlines():
        if line.strip() == "…":
            pattern.append(r"(?:[^\n]*\n)*?")
        else:
            pattern.append("[^\n]*?".join(map(re.escape, line.rstrip().split("…"))) + "\n")
    told = "".join(line.rstrip() + "\n" for line in printed.rstrip().splitlines())
    return not re.fullmatch("".join(pattern), told)


def pages() -> list[Page]:
    """README and all pages of docs/."""
    own = (ROOT / "README.md", ROOT / "packaging" / "pytest-netns" / "README.md")
    return [Page(path) for path in (*own, *sorted((ROOT / "docs").rglob("*.md")))]


PAGES = pages()
