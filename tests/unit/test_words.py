"""The check of wording (scripts/words): what it reads, what it counts, and when it fails."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "words"


def _load() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("scripts_words", str(SCRIPT))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module  # dataclasses look their module up
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    loader.exec_module(module)
    sys.dont_write_bytecode = before
    return module


words = _load()


def found(text: str, path: str = "docs/page.md") -> list[tuple[str, int]]:
    return [(use.phrase.name, use.line) for use in words.uses_in(path, text)]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Links are skipped. What has no peer is left out.", "What"),
        ("Who lacks it is left out.", "Who"),
        ("It prints all that is known.", "all that"),
        ("The first one that answers is used.", "one that"),
        ("It takes the price of one.", "of one"),
        ("It is for those who wait.", "those who"),
        ("There are so many links.", "so many"),
        ("It prints a line a link.", "a line a link"),
        ("It keeps the host as the store says.", "as it says"),
        ("It is as it should be.", "as it should"),
        ("It is wanted twice.", "wanted"),
        ("The kernel says no.", "says"),
        ("The status can say why.", "say what"),
        ("It tells the cache.", "tells"),
        ("It hears of links.", "hears"),
        ("It waits for news.", "news"),
        ("The pair comes back.", "comes"),
        ("The pair goes.", "goes"),
        ("The link stands.", "stands"),
        ("The link bears routes.", "bears"),
        ("It is read anew.", "anew"),
        ("It returns by itself.", "by itself"),
        ("It takes two besides.", "besides"),
        ("It is mostly empty.", "mostly"),
        ("The link is at home.", "at home"),
        ("It leaves links of others alone.", "of others"),
    ],
)
def test_a_phrase_is_found_also_where_a_line_ends_in_it(text: str, name: str) -> None:
    assert name in [phrase for phrase, _ in found(text)]
    assert name in [phrase for phrase, _ in found(text.replace(" ", "\n"))]


def test_every_phrase_has_an_example_here() -> None:
    marks = test_a_phrase_is_found_also_where_a_line_ends_in_it.pytestmark  # type: ignore[attr-defined]
    assert {phrase.name for phrase in words.PHRASES} == {name for _, name in marks[0].args[1]}


@pytest.mark.parametrize(
    "text",
    [
        "```console\n$ echo goes anew\n```",
        "- item\n  ```text\n  goes anew\n  ```",
        "~~~\ngoes anew\n~~~",
        "A block:\n\n    goes anew\n    goes anew\n\n    goes anew\n",
        "- A block in a list:\n\n      goes anew\n",
        "The command `goes anew` and ``says ` so``, and `one over\ntwo lines that says so`.",
        "<!-- goes\nanew -->",
        "A [What is here](what-it-says.md) and https://example.org/at home",
        'The message is "the pair goes".',
        "# What it says\n\n## Who says it",
        "What is a link? It prints what it finds. It comes with a tool, goes down one by one; `doctor` tells you so.",
    ],
)
def test_code_quotations_headings_and_good_english_are_no_uses(text: str) -> None:
    assert found(text) == []


def test_prose_between_and_after_blocks_is_read_with_its_line_numbers() -> None:
    text = "```text\nx\n```\ngoes\n\n    code goes\n\nanew\n- item\n    goes on, but says so\n<!-- a\nb -->\nbesides\n"
    assert found(text) == [("says", 10), ("goes", 4), ("anew", 8), ("besides", 13)]


def test_of_python_the_public_docstrings_and_the_messages_are_read() -> None:
    text = '''"""Module.

It goes.

    code goes
"""
# a comment goes
NAME = "goes"


class Public:
    """Class.

    It says so.
    """

    def _private(self) -> str:
        """It goes."""
        return f"it says {NAME} and waits"
'''
    assert found(text, "vethlib/a.py") == [("goes", 3), ("says", 14), ("says", 19)]


class Project:
    """A small project with a git repository, words.txt and one page and module."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("docs", "scripts", "vethlib"):
            (root / name).mkdir()
        self.write("docs/page.md", "It says so.\nIt goes.\n")
        self.write("vethlib/a.py", '"""It says so.\n\nIt says so.\n"""\n')
        assert words.main(["--update"], root) == 0
        self.git("init", "-q")
        self.commit()

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text)

    def git(self, *arguments: str) -> None:
        options = ["user.name=x", "user.email=x@example.org", "commit.gpgsign=false"]
        command = ["git", "-C", str(self.root), *(word for option in options for word in ("-c", option)), *arguments]
        subprocess.run(command, check=True, capture_output=True)

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-qm", "x")

    def counts(self) -> list[str]:
        return (self.root / "scripts/words.txt").read_text().splitlines()[1:]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_what_words_txt_admits_passes_and_so_does_less(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert project.counts() == ["docs/page.md 1 goes", "docs/page.md 1 says", "vethlib/ 2 says"]
    assert words.main([], project.root) == 0
    project.write("docs/page.md", "It says so.\n")
    assert words.main([], project.root) == 0
    assert capsys.readouterr().out == ""


def test_a_new_use_fails_with_its_place_and_a_cure(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.write("docs/page.md", "It says so.\nIt goes.\n\nThe log says so.\n")
    assert words.main([], project.root) == 1
    place, cure = capsys.readouterr().out.splitlines()
    assert place == "docs/page.md:4: 'says': The log says so."
    assert cure.startswith("  1 more than admitted; programs do not speak")


def test_a_new_use_is_found_among_old_ones_of_the_code_after_a_commit_too(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.write("vethlib/b.py", '"""The log says so."""\n')
    for step in (project.commit, lambda: None):
        assert words.main([], project.root) == 1
        assert capsys.readouterr().out.splitlines()[0] == 'vethlib/b.py:1: \'says\': """The log says so."""'
        step()


def test_without_git_all_candidates_are_printed(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (project.root / ".git").rename(project.root / "elsewhere")
    project.write("vethlib/b.py", '"""The log says so."""\n')
    assert words.main([], project.root) == 1
    assert capsys.readouterr().out.count("'says'") == 3


def test_text_may_move(project: Project) -> None:
    (project.root / "vethlib/deeper").mkdir()
    (project.root / "vethlib/a.py").rename(project.root / "vethlib/deeper/b.py")
    (project.root / "docs/page.md").rename(project.root / "docs/other.md")
    assert words.main([], project.root) == 0
    assert words.main(["--update"], project.root) == 0
    assert project.counts() == ["docs/other.md 1 goes", "docs/other.md 1 says", "vethlib/ 2 says"]


def test_an_update_lowers_numbers_and_raises_none(project: Project) -> None:
    project.write("docs/page.md", "It says so. It says so. It says so.\n")
    assert words.main(["--update"], project.root) == 1
    assert project.counts() == ["docs/page.md 1 says", "vethlib/ 2 says"]
    project.write("docs/page.md", "")
    assert words.main(["--update"], project.root) == 0
    assert project.counts() == ["vethlib/ 2 says"]


def test_an_unknown_option_prints_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert words.main(["--help"]) == 2
    assert "scripts/words --update" in capsys.readouterr().out


def test_the_project_is_read_in_little_more_time_than_python_needs_to_parse_it() -> None:
    began = time.process_time()
    for path in words.ROOT.glob("vethlib/**/*.py"):
        ast.parse(path.read_bytes())
    parsed = time.process_time()
    uses = words.all_uses(words.ROOT)
    assert time.process_time() - parsed < 6 * (parsed - began)
    assert words.read_counts(words.write_counts(Counter((use.phrase.name, use.area) for use in uses)))
