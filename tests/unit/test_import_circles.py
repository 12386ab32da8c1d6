"""No two modules of the package import each other, not even by way of others, nor for types alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

from tests.docs.page import ROOT

# BatchError.created has the type Pair, and modules that create Pairs raise errors. The import rules allow this, too.
ADMITTED = ("vethlib.errors", "vethlib.links")


def _modules(root: Path) -> dict[str, Path]:
    """Each module of the package in `root` by its dotted name."""
    paths = {path: path.relative_to(root.parent).with_suffix("") for path in root.rglob("*.py")}
    return {".".join(name.parts).removesuffix(".__init__"): path for path, name in paths.items()}


def _imports(module: str, path: Path) -> Iterator[str]:
    """Return every dotted name that a module imports, anywhere in it, as a module or as an attribute of a module."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _graph(root: Path) -> dict[str, set[str]]:
    """Return the modules that each module imports. Importing an attribute counts as importing its package or module."""
    modules = _modules(root)
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        names = {name if name in modules else name.rpartition(".")[0] for name in _imports(module, path)}
        graph[module] = (names & modules.keys()) - {module}
    return graph


def _circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_each_other() -> None:
    graph = _graph(ROOT / "vethlib")
    importing, imported = ADMITTED
    assert imported in graph[importing], "the exception is no longer needed"
    graph[importing].remove(imported)
    assert len(graph) > 300
    assert _circle(graph) == []


@pytest.mark.parametrize(
    "imports",
    ["from .b import B", "from . import b", "from pack.sub import b", "import pack.sub.b", "from .b import *"],
)
def test_a_circle_is_found(tmp_path: Path, imports: str) -> None:
    package = tmp_path / "pack" / "sub"
    package.mkdir(parents=True)
    (tmp_path / "pack" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "a.py").write_text(f"if TYPE_CHECKING:\n    {imports}\n" if "*" not in imports else f"{imports}\n")
    (package / "b.py").write_text("def f():\n    from ..sub.a import A\n")
    assert set(_circle(_graph(tmp_path / "pack"))) == {"pack.sub.a", "pack.sub.b"}
    (package / "b.py").write_text("from ..other import A\n")
    assert _circle(_graph(tmp_path / "pack")) == []
