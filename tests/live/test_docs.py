"""The documentation is correct: the examples of its pages are run, and do what the pages describe."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.docs.page import PAGES, Page
from tests.docs.running import run_page
from vethlib import ns

pytestmark = pytest.mark.docs

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
        "$ echo changed >/etc/vethlib-page\n$ (echo begun; exec setsid sleep 77) >lives &\n"
        "$ export A=1; cd ..\n$ echo $A ${PWD##*/}\n1 …\n"
    )
    (tmp_path / "page.md").write_text(f"```console\n{text}```\n\n```python\nprint()\n```\n")
    (tmp_path / "page").mkdir()
    os.mkfifo(tmp_path / "page" / "lives")
    lives = os.open(tmp_path / "page" / "lives", os.O_RDONLY | os.O_NONBLOCK)
    names = ns.names()
    with pytest.raises(AssertionError, match=r"line_\d+\.py"):  # a script is where the shell is, and that has left
        run_page(Page(tmp_path / "page.md"), tmp_path / "page")
    assert ns.names() == names
    assert not Path("/etc/vethlib-page").exists()
    with open(lives) as pipe:
        assert pipe.read() == "begun\n"  # and its end: nobody has it open any more


def test_the_pairs_of_an_example_are_gone_when_the_next_one_begins(tmp_path: Path) -> None:
    makes = (
        "from vethlib import End, Netns, Session, Veth\nwith Session() as session, Netns.create('blue') as blue:\n"
        "    session.create_many(Veth(End(f'a{i}'), End(f'b{i}', blue)) for i in range(50))\n"
    )
    (tmp_path / "page.md").write_text(f"```python\n{makes}```\n\n```console\n$ ip -o link | wc -l\n1\n```\n")
    (tmp_path / "page").mkdir()
    assert run_page(Page(tmp_path / "page.md"), tmp_path / "page") == 2


def test_a_page_sees_its_own_processes_only_and_its_signals_and_jobs_work(tmp_path: Path) -> None:
    text = (
        "$ set -- /proc/[0-9]*; echo $#\n2\n"  # the bash, and who reaps
        "$ trap 'echo heard' USR1; kill -USR1 $$\nheard\n"
        "$ sleep 78 & kill $!; wait $!  # exits 143\n"
        "$ set -m; sleep 79 & jobs; kill %1; wait %1  # exits 143\n[1]+  Running … sleep 79 &\n…\n"
        "$ kill -INT 1; kill -KILL 1; true\n"  # process 1 hears neither
        "$ (sleep 0.01 &); sleep 0.1; cat /proc/[0-9]*/status 2>/dev/null | grep '^State:.Z'  # exits 1\n"
        "$ script -qec tty /dev/null\n/dev/pts/…\n"
        "$ kill -KILL $$\n"
    )
    (tmp_path / "page.md").write_text(f"```console\n{text}```\n")
    (tmp_path / "page").mkdir()
    with pytest.raises(AssertionError) as caught:
        run_page(Page(tmp_path / "page.md"), tmp_path / "page")
    if "sees the processes of the host" in str(caught.value):
        pytest.skip(str(caught.value).splitlines()[-1])
    assert str(caught.value).startswith("the page's shell has ended")
