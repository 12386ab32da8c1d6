"""Requirements for the pages of the documentation, and which parts are run; the running itself is in tests/live."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.docs.page import PAGES, Block, Page, differs

pytestmark = pytest.mark.docs

NOT_RUN = Path(__file__).parents[1] / "docs" / "not_run.txt"


def _block(text: str) -> Block:
    return Block(1, "console", text)


def test_every_block_that_is_not_run_is_listed_with_its_reason() -> None:
    left_out = sorted(f"{page.name}: {block.not_run}" for page in PAGES for block in page.blocks() if block.not_run)
    assert NOT_RUN.read_text().splitlines() == left_out, f"{NOT_RUN} is to be reviewed where a block is left out"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_told_in_blocks_that_are_run(page: Page) -> None:
    for block in page.blocks():
        assert not block.is_shell, f"{page.name}:{block.line}: `console`, with `$ ` before each command, is run"
        if block.language == "console":
            assert list(block.steps()), f"{page.name}:{block.line}: no command in it"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_reason_for_not_running_belongs_to_a_block(page: Page) -> None:
    comments = [line for line in page.text.splitlines() if re.match(r"<!-- not run", line)]
    assert len(comments) == sum(bool(block.not_run) for block in page.blocks())


def test_a_page_is_taken_apart_into_its_blocks(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(
        "<!-- needs: etcd engine -->\n# A page\n\n```console\n$ true\n```\n"
        "<!-- not run: no card here -->\n```python\nx\n```\n\n"
        "```python\nprint(1)\n```\n\n```text\n1\n```\n\n````text\n```\n````\n"
    )
    page = Page(path)
    assert page.needs == {"etcd", "engine"}
    assert list(page.blocks()) == [
        Block(4, "console", "$ true"),
        Block(8, "python", "x", "no card here"),
        Block(12, "python", "print(1)", prints="1"),
        Block(20, "text", "```"),
    ]
    assert [block.runs for block in page.blocks()] == [True, False, True, False]


def test_a_block_that_nothing_closes_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("```console\n$ true\n")
    with pytest.raises(ValueError, match=r"page\.md:1: "):
        list(Page(tmp_path / "page.md").blocks())


def test_a_command_goes_on_over_lines_and_has_what_it_prints_and_how_it_ends() -> None:
    first, second, third = _block("$ cat <<'END'\n> a\n>\n> END\na\n\n$ false  # exits 1\n$ sleep 9 &\n").steps()
    assert (first.line, first.command, first.expected, first.exits) == (2, "cat <<'END'\na\n\nEND", "a", 0)
    assert (second.line, second.command, second.expected, second.exits) == (8, "false", "", 1)
    assert [step.background for step in (first, second, third)] == [False, False, True]


def test_output_before_a_command_is_an_error() -> None:
    with pytest.raises(ValueError, match="line 2: "):
        list(_block("what\n$ true").steps())


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        ("a", "a\n"),
        ("a…c", "abc\n"),
        ("a…", "a\n"),
        ("…", ""),
        ("a\n…\nz", "a\nb\nc\nz"),
        ("a\n…\nz", "a\nz"),
        ("…\nz", "a\nz\n\n"),
        ("a.c  ", "a.c"),
    ],
)
def test_what_a_page_shows_stands_for_what_was_printed(expected: str, printed: str) -> None:
    assert not differs(expected, printed)


@pytest.mark.parametrize(
    ("expected", "printed"),
    [("a", "b"), ("a.c", "abc"), ("a…c", "ab\nc"), ("a", "a\nb"), ("a\n…\nz", "a\nb"), ("…a", "")],
)
def test_anything_else_differs(expected: str, printed: str) -> None:
    assert differs(expected, printed)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_transcript_stands_outside_of_a_block(page: Page) -> None:
    assert not re.search(r"^    \$ (?!pip install)", page.text, re.MULTILINE), "nobody would run it"


def _shows_something(line: str) -> bool:
    return bool(line.replace("…", "").strip())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_script_prints_is_told_in_full(page: Page) -> None:
    """`…` stands for a part of a line: a line of nothing else could hide that an example fails."""
    for block in page.blocks():
        if block.language == "python":
            hidden = [line for line in block.prints.splitlines() if not _shows_something(line)]
            assert not hidden, f"{page.name}:{block.line}: tell what it prints"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_transcript_shows_something(page: Page) -> None:
    for block in page.blocks():
        if block.language == "console":
            printed = "".join(step.expected for step in block.steps())
            assert not printed or _shows_something(printed), f"{page.name}:{block.line}: nothing but …"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_code_is_left_out_of_a_script(page: Page) -> None:
    for block in page.blocks():
        if block.language == "python":
            left_out = [node for node in ast.walk(ast.parse(block.text)) if getattr(node, "value", 0) is ...]
            assert not left_out, f"{page.name}:{block.line}: write what `...` stands for"
