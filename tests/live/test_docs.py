"""The documentation holds: what its pages say is run, and does what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.page import PAGES, Page
from tests.docs.running import run_page

_HERE = [page for page in PAGES if not page.needs and any(block.runs for block in page.blocks())]


@pytest.mark.parametrize("page", _HERE, ids=lambda page: page.name)
def test_what_a_page_says_is_what_happens(page: Page, tmp_path: Path) -> None:
    scratch = tmp_path / "page"
    scratch.mkdir()
    assert run_page(page, scratch)
