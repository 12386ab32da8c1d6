"""Check the types of all Python in the pages and docstrings: ``python -m tests.docs.typed``, part of ``make check``.

Each example becomes a file below .build, and mypy checks them all at once. One of a page is a whole program. One of a
docstring may use what its readers have at hand: the public names, those of its own module, and the objects of
:data:`AT_HAND`.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .page import PAGES, ROOT

__all__ = ["Example", "examples_of_docstrings", "examples_of_pages"]

WHERE = ROOT / ".build" / "examples"

AT_HAND = """
import asyncio, os, select, signal, socket, subprocess, sys, time
from collections.abc import Sequence
from pathlib import Path
import prometheus_client
from vethlib import *
from vethlib import ns
from vethlib.agent import *
from vethlib.agent import Configurator, DockerResolver, Interface, PacketPort
from vethlib.follow import Follower
from vethlib.agent.host.execution import execute
from vethlib.agent.host.observation import observe, with_settings
from vethlib.topology import Topology
session: Session
configurator: Configurator
follower: Follower
label: str
refs: list[str]
interfaces: dict[str, Interface]
"""


class Example(NamedTuple):
    """A piece of Python: where it stands, what mypy is to check, and in which line of that it begins."""

    place: str
    text: str
    begins: int = 1


def examples_of_pages() -> Iterator[Example]:
    """The blocks of Python in README and docs."""
    for page in PAGES:
        for block in page.blocks():
            if block.language == "python":
                yield Example(f"{page.name}:{block.line}", block.text)


def examples_of_docstrings() -> Iterator[Example]:
    """The indented blocks of docstrings that are Python, with what their readers have at hand before them."""
    for path in sorted((ROOT / "vethlib").rglob("*.py")):
        text = path.read_text()
        if "_pb2" in path.name or not re.search(r"^ {4,8}\S.*\n", text, re.MULTILINE):
            continue
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        # A topology has routes of its own kind.
        own = f"from {module} import *  # type: ignore[assignment,unused-ignore]\n"
        for line, block in _blocks(path, text):
            before = AT_HAND + own
            yield Example(f"{path.relative_to(ROOT)}:{line}", before + block, before.count("\n") + 1)


def _blocks(path: Path, text: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            for block in re.findall(r"\n\n((?: {4}.*(?:\n\n?|$))+)", ast.get_docstring(node) or ""):
                code = textwrap.dedent(block).strip()
                if _is_python(code):
                    yield getattr(node, "lineno", 1), code


def _is_python(code: str) -> bool:
    """Return whether it has a statement of Python: tables and netlink messages look like expressions, or like none.

    A `…` in it is nothing that mypy lets pass.
    """
    try:
        statements = ast.parse(code.replace("…", "...")).body
        return any(not isinstance(one, ast.Expr) or isinstance(one.value, ast.Call) for one in statements)
    except SyntaxError:
        return False


def main() -> int:
    """Check all; print what mypy finds, with the places in the pages."""
    shutil.rmtree(WHERE, ignore_errors=True)
    WHERE.mkdir(parents=True)
    written = {}
    for number, example in enumerate([*examples_of_pages(), *examples_of_docstrings()]):
        file = WHERE / f"example_{number}.py"
        file.write_text(example.text + "\n")
        written[file.name] = example
    mypy = [sys.executable, "-m", "mypy", "--no-error-summary", "--hide-error-context", "--cache-dir", ".build/mypy"]
    ran = subprocess.run([*mypy, str(WHERE)], cwd=ROOT, capture_output=True, text=True, check=False)
    for line in ran.stdout.splitlines():
        name, _, rest = line.removeprefix(f"{WHERE.relative_to(ROOT)}/").partition(":")
        at, _, what = rest.partition(":")
        of = written.get(name)
        print(f"{of.place}: line {int(at) - of.begins + 1} of it:{what}" if of else line)
    print(ran.stderr, end="")
    return ran.returncode


if __name__ == "__main__":
    sys.exit(main())
