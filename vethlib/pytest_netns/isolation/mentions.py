"""Find the plugin's fixtures that a Python source uses, and those of their names that it defines itself.

Pure, and without importing the source. Names like `topology` are common: a function with such a parameter uses a
fixture only if it is a test or a fixture itself, and not the plugin's if the project has a fixture of that name. In
doubt, a name is assumed not to mean a fixture of the plugin.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from vethlib.pytest_netns.names import FIXTURES

__all__ = ["MARKER", "NOTHING", "Mentions", "look"]

_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Mentions:
    """`asked`: the names used, unless a conftest.py above defines them. `given`: the names with another definition."""

    asked: tuple[str, ...]
    given: frozenset[str]


NOTHING: Final = Mentions((), frozenset())
MARKER: Final = "the marker netns"

# Only files with one of these words are parsed, because few have any.
_WORD: Final = re.compile(rf"\b(?:{'|'.join(sorted(FIXTURES))})\b".encode())


def look(source: bytes, is_test: Callable[[str], bool]) -> Mentions:
    """Return the names that a source mentions; `is_test(name)` is whether pytest treats a function as a test."""
    if not _WORD.search(source):
        return NOTHING
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about the source appear when it is imported
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return NOTHING
    nodes = list(ast.walk(tree))
    given = FIXTURES.intersection(name for node in nodes for name in _given(node))
    given |= FIXTURES.intersection(name for node in tree.body for name in _bound(node))
    return Mentions(tuple(name for node in nodes for name in _asked(node, is_test, given)), given)


def _asked(node: ast.AST, is_test: Callable[[str], bool], given: frozenset[str]) -> Iterator[str]:
    if isinstance(node, ast.Attribute) and node.attr == "netns" and _last_name(node.value) == "mark":
        yield MARKER
    elif isinstance(node, ast.Call) and _last_name(node.func) in ("usefixtures", "getfixturevalue"):
        yield from (name for name in _texts(node.args) if name in FIXTURES and name not in given)
    elif isinstance(node, _Function):
        fixture = _name_as_fixture(node)
        if fixture or is_test(node.name):
            # A fixture that uses its own name extends the fixture that it overrides.
            yield from (n for n in _parameters(node) if n in FIXTURES and (n not in given or n == fixture))


def _given(node: ast.AST) -> Iterator[str]:
    """Return the names that are defined by a fixture, by parameters or by a patch."""
    if isinstance(node, _Function):
        yield _name_as_fixture(node)
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call):
                yield from (keyword.arg for keyword in decorator.keywords if keyword.arg)
                if "patch" in ast.dump(decorator.func):
                    yield from (text.rpartition(".")[2] for text in _texts(decorator.args))
    elif isinstance(node, ast.Call) and _last_name(node.func) == "parametrize" and node.args:
        names = node.args[0]
        for text in _texts(names.elts if isinstance(names, (ast.List, ast.Tuple)) else [names]):
            yield from (name.strip() for name in text.split(","))


def _bound(statement: ast.stmt) -> Iterator[str]:
    """Return the names that a statement of the module binds, perhaps to a fixture from elsewhere."""
    if isinstance(statement, ast.ImportFrom) and not (statement.module or "").startswith("vethlib"):
        yield from (alias.asname or alias.name for alias in statement.names)
    elif isinstance(statement, ast.Assign):
        yield from (target.id for target in statement.targets if isinstance(target, ast.Name))


def _name_as_fixture(function: _Function) -> str:
    """Return the name of a function as a fixture, or ""."""
    for decorator in function.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        if not _last_name(called).endswith("fixture"):
            continue
        keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
        named = _texts([keyword.value for keyword in keywords if keyword.arg == "name"])
        return next(named, function.name)
    return ""


def _parameters(function: _Function) -> Iterator[str]:
    """Yield the parameters without a default, which pytest fills in."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    yield from (parameter.arg for parameter in positional[: len(positional) - len(arguments.defaults)])
    keywords = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    yield from (parameter.arg for parameter, default in keywords if not default)


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _texts(nodes: list[ast.expr]) -> Iterator[str]:
    return (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
