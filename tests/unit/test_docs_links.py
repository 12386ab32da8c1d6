"""Links between pages lead somewhere, and generated parts of pages match the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.page import PAGES, ROOT, Page

pytestmark = pytest.mark.docs

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_PAGES = [
    *PAGES,
    *(Page(ROOT / name) for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "tests/README.md")),
]


def _anchors(path: Path) -> set[str]:
    """The names of a page's headings, as GitHub makes them."""
    titles = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def _outside_blocks(page: Page) -> str:
    return re.sub(r"^```.*?^```", "", page.text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Page) -> None:
    for link in _LINK.findall(_outside_blocks(page)):
        if re.match(r"https?:|mailto:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.path.parent / name).resolve() if name else page.path
        assert target.exists(), f"{page.name}: {link} leads nowhere"
        if anchor:
            assert anchor in _anchors(target), f"{page.name}: {link}: there is no such heading"


def test_every_page_can_be_reached_from_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    reached: set[Path] = set()
    left = {index}
    while left:
        page = left.pop()
        reached.add(page)
        links = {(page.parent / link.partition("#")[0]).resolve() for link in _LINK.findall(page.read_text())}
        left |= {
            one for one in links if one.suffix == ".md" and one.is_file() and one.is_relative_to(ROOT / "docs")
        } - reached
    assert {page.path for page in PAGES if page.path.is_relative_to(ROOT / "docs")} == reached


def test_what_is_made_from_the_code_is_as_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


_SPHINX = (
    # It creates a million nodes that live as long as it runs, and garbage collection would take a fifth of its time.
    "import gc, sys; gc.set_threshold(200_000, 20, 1000)\n"
    "from sphinx.cmd.build import main; sys.exit(main(sys.argv[1:]))"
)


@pytest.mark.slow
@pytest.mark.release
def test_the_html_is_made_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _SPHINX, "--fail-on-warning", "--keep-going", "--quiet", "--builder", "html"]
    done = subprocess.run(
        [*command, "-d", str(tmp_path / "doctrees"), "docs", str(tmp_path / "html")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "html/index.html").exists()
