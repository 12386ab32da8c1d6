"""ARCHITECTURE.md names every package, and nothing that does not exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.docs.page import ROOT

PACKAGE = ROOT / "vethlib"
MOST_MODULES = 15  # beside `__init__`
PAGE = (ROOT / "ARCHITECTURE.md").read_text()


def _named(text: str) -> list[str]:
    """The paths in backticks: names that end with a slash, or have a suffix of ours."""
    return re.findall(r"`([\w./]+(?:/|\.py|\.md|\.txt|\.proto))`", text)


def _rows() -> Iterator[tuple[Path, list[Path]]]:
    """Each row of the table of packages: its paths, and those of its parts, from the root of the package."""
    table = PAGE.partition("| package in `vethlib/` |")[2].partition("\n\n")[0]
    parent = Path()
    for row in table.splitlines()[2:]:
        first, second = row.strip("|").split("|")
        inside = first.strip().startswith("—")
        for name in _named(first):
            package = parent / name if inside else Path(name)
            yield package, [package / part for part in _named(second) if part.endswith("/")]
        if not inside:
            parent = Path(_named(first)[0])


def test_every_package_is_in_the_table_and_exists() -> None:
    named = {path for package, parts in _rows() for path in (package, *parts)}
    packages = {path.parent.relative_to(PACKAGE) for path in PACKAGE.glob("**/__init__.py")} - {Path()}
    modules = {path.relative_to(PACKAGE) for path in PACKAGE.glob("*.py") if not path.name.startswith("__")}
    assert named == packages | modules


def test_every_path_that_is_named_exists() -> None:
    before, _, table = PAGE.partition("| package in `vethlib/` |")
    rest = before + table.partition("\n\n")[2]
    named = _named(rest)
    assert len(named) > 20
    assert [name for name in named if not any((root / name).exists() for root in (ROOT, PACKAGE))] == []


def test_no_package_has_more_modules_than_a_reader_can_take_in() -> None:
    folders = [PACKAGE, *(path for path in PACKAGE.rglob("*") if path.is_dir())]
    modules = {
        package: [path for path in package.glob("*.py") if not path.name.startswith("__")] for package in folders
    }
    assert {package.name: len(inside) for package, inside in modules.items() if len(inside) > MOST_MODULES} == {}
