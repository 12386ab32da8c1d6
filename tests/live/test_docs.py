"""The documentation holds: what its pages say is run, and does what they say."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.docs.page import PAGES, Page
from tests.docs.running import run_page
from vethlib import ns

_HERE = [page for page in PAGES if not page.needs and any(block.runs for block in page.blocks())]


@pytest.mark.parametrize("page", _HERE, ids=lambda page: page.name)
def test_what_a_page_says_is_what_happens(page: Page, tmp_path: Path) -> None:
    scratch = tmp_path / "page"
    scratch.mkdir()
    assert run_page(page, scratch)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("$ echo a\nb", "page.md:2: echo a\n--- should have printed\nb\n--- but; it printed\na"),
        ("$ false", "page.md:2: false\n--- ended with 1, not 0; it printed\n(nothing)"),
        ("$ true  # exits 3", "page.md:2: true\n--- ended with 0, not 3; it printed\n(nothing)"),
        ("$ export A=1; mkdir d; cd d\n$ echo $A; exit 4", "the page's shell has ended"),
    ],
)
def test_a_page_that_is_wrong_is_told_which_step(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "page.md").write_text(f"```console\n{text}\n```\n")
    (tmp_path / "page").mkdir()
    with pytest.raises(AssertionError) as caught:
        run_page(Page(tmp_path / "page.md"), tmp_path / "page")
    assert str(caught.value).startswith(why)


def test_a_page_is_in_a_world_of_its_own_and_what_it_starts_ends_with_it(tmp_path: Path) -> None:
    text = (
        "$ ip -o link | wc -l\n1\n$ ls /run/netns /run/vethlib\n…\n$ vethctl netns add only-here\n"
        "$ echo changed >/etc/vethlib-page\n$ sleep 77 & echo $! >pid; [ -e /proc/$(cat pid) ]\n"
        "$ export A=1; cd ..\n$ echo $A ${PWD##*/}\n1 …\n"
    )
    (tmp_path / "page.md").write_text(f"```console\n{text}```\n\n```python\nprint(open('pid').read())\n```\n")
    (tmp_path / "page").mkdir()
    names = ns.names()
    with pytest.raises(AssertionError, match=r"line_\d+\.py"):  # a script is where the shell is, and that has left
        run_page(Page(tmp_path / "page.md"), tmp_path / "page")
    assert ns.names() == names
    assert not Path("/etc/vethlib-page").exists()
    pid = (tmp_path / "page" / "pid").read_text().strip()
    deadline = time.monotonic() + 5
    while (
        Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text()
    ):  # who reaps it may be late
        assert time.monotonic() < deadline, f"process {pid} lives on"
        time.sleep(0.01)
