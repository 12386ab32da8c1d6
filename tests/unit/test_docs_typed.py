"""Which examples of pages and docstrings have their types checked; mypy itself runs in `make check`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import typed
from tests.docs.typed import examples_of_docstrings, examples_of_pages

pytestmark = pytest.mark.docs


def test_every_page_with_python_is_checked() -> None:
    places = {example.place.rpartition(":")[0] for example in examples_of_pages()}
    assert {"README.md", "docs/how-to/embed.md", "docs/pytest-netns.md"} <= places


def test_examples_in_docstrings_are_found_and_tables_are_not() -> None:
    found = {example.place.rpartition(":")[0]: example.text for example in examples_of_docstrings()}
    assert "configurator.resync(" in found["vethlib/agent/reconcile/configurator.py"]
    assert "vethlib/session/read/counting.py" not in found
    assert "vethlib/topology/design/text.py" not in found


def test_an_ellipsis_in_code_does_not_make_it_a_table(tmp_path: Path) -> None:
    text = '"""It.\n\n    with Session() as s:\n        s.create(…)\n\nMore.\n\n    a … table\n"""\n'
    assert [code for _, code in typed._blocks(tmp_path, text)] == ["with Session() as s:\n    s.create(…)"]
