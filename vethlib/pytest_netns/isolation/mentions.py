"""Find the plugin's fixtures that a Python source uses, and those of these names that it defines itself.

Pure, and without importing the source. Names like `topology` are common: a function with such a parameter uses a
fixture only if it is a test or a fixture itself and nothing else fills in the parameter; and it is not the plugin's
fixture if the project has a fixture of that name. In doubt, a name is assumed not to mean a fixture of the plugin.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from vethlib.pytest_netns.names import FIXTURES

__all__ = ["MARKER", "NOTHING", "Mentions", "look"]

_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
_Is: TypeAlias = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Mentions:
    """The names in a source: `asked` are used, unless a conftest.py above defines them; `given` are defined otherwise.

    With `imports_all`, the source imports all names of a module, perhaps some of these.
    """

    asked: tuple[str, ...]
    given: frozenset[str]
    imports_all: bool = False


NOTHING: Final = Mentions((), frozenset())
MARKER: Final = "the marker netns"

# Only the few files that contain one of these words are parsed.
_WORD: Final = re.compile(rf"\b(?:{'|'.join(sorted(FIXTURES))})\b|\bimport\s*\*".encode())


def look(source: bytes, is_test: _Is, is_test_class: _Is) -> Mentions:
    """Return the names that a source mentions. `is_test` and `is_test_class` are pytest's rules for finding tests."""
    if not _WORD.search(source):
        return NOTHING
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about the source appear when it is imported
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return NOTHING
    nodes = list(ast.walk(tree))
    of_module = list(_of_module(tree))
    given = FIXTURES.intersection(name for node in nodes for name in _given(node, nodes))
    given |= FIXTURES.intersection(name for node in of_module for name in _bound(node))
    tests = _Tests(nodes, is_test, is_test_class)
    asked = tuple(name for node in nodes for name in _asked(node, tests, given))
    return Mentions(asked, given, any(_imports_all(node) for node in of_module))


class _Tests:
    """The functions of a source that pytest treats as tests."""

    def __init__(self, nodes: Iterable[ast.AST], is_test: _Is, is_test_class: _Is) -> None:
        classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
        self._class_of = {statement: node for node in classes for statement in node.body}
        self._inherited = {_last_name(base) for node in classes for base in node.bases}
        self._is_test, self._is_test_class = is_test, is_test_class

    def parameters(self, function: _Function) -> Iterator[str]:
        """Yield the parameters that pytest fills in if the function is a test."""
        if not self._is_test(function.name):
            return
        if (of_class := self._class_of.get(function)) is None:
            yield from _parameters(function, function.decorator_list)
        elif self._is_collected(of_class):
            yield from _parameters(function, [*function.decorator_list, *of_class.decorator_list], 1)

    def _is_collected(self, of_class: ast.ClassDef) -> bool:
        """Return whether pytest fills in the parameters of the methods, which it does not for a unittest.TestCase."""
        is_collected = self._is_test_class(of_class.name) or of_class.name in self._inherited
        return is_collected and not any(_last_name(base).endswith("TestCase") for base in of_class.bases)


def _asked(node: ast.AST, tests: _Tests, given: frozenset[str]) -> Iterator[str]:
    if isinstance(node, ast.Attribute) and node.attr == "netns" and _last_name(node.value) == "mark":
        yield MARKER
    elif isinstance(node, ast.Call) and _last_name(node.func) in ("usefixtures", "getfixturevalue"):
        yield from (name for name in _texts(node.args) if name in FIXTURES and name not in given)
    elif isinstance(node, _Function):
        fixture = _name_as_fixture(node)
        # A fixture that uses its own name extends the fixture that it overrides.
        names = _parameters(node) if fixture else tests.parameters(node)
        yield from (name for name in names if name in FIXTURES and (name not in given or name == fixture))


def _given(node: ast.AST, nodes: Sequence[ast.AST]) -> Iterator[str]:
    """Yield the names that are defined by a fixture or by parameters."""
    if isinstance(node, _Function):
        yield _name_as_fixture(node)
    elif isinstance(node, ast.Call) and _last_name(node.func) == "parametrize":
        names = _argnames(node)
        # Computed names are probably written somewhere in the source.
        yield from _names_in(_texts(nodes)) if names is None else names


def _argnames(call: ast.Call) -> list[str] | None:
    """Return the names that a call of parametrize gives; None if they are computed."""
    given = call.args[0] if call.args else next((each.value for each in call.keywords if each.arg == "argnames"), call)
    each = given.elts if isinstance(given, (ast.List, ast.Tuple)) else [given]
    texts = list(_texts(each))
    return list(_names_in(texts)) if len(texts) == len(each) else None


def _names_in(texts: Iterable[str]) -> Iterator[str]:
    return (name.strip() for text in texts for name in text.split(","))


def _of_module(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the statements of the module, including those in its conditions and blocks."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, _Function | ast.ClassDef | ast.expr):
            waiting.extend(ast.iter_child_nodes(node))


def _bound(statement: ast.AST) -> Iterator[str]:
    """Yield the names that a statement of the module binds, perhaps to a fixture from elsewhere."""
    if isinstance(statement, ast.ImportFrom) and not _is_ours(statement):
        yield from (alias.asname or alias.name for alias in statement.names)
    elif isinstance(statement, ast.Assign):
        yield from (target.id for target in statement.targets if isinstance(target, ast.Name))
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        yield statement.target.id
    elif isinstance(statement, _Function) and statement.decorator_list and not _name_as_fixture(statement):
        yield statement.name


def _imports_all(statement: ast.AST) -> bool:
    return (
        isinstance(statement, ast.ImportFrom)
        and not _is_ours(statement)
        and any(alias.name == "*" for alias in statement.names)
    )


def _is_ours(statement: ast.ImportFrom) -> bool:
    return (statement.module or "").split(".")[0] == "vethlib" and not statement.level


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


def _parameters(function: _Function, decorators: Sequence[ast.expr] = (), first: int = 0) -> Iterator[str]:
    """Yield the parameters without a default from `first` on, except those that these decorators may fill in."""
    arguments = function.args
    positional = [parameter.arg for parameter in (*arguments.posonlyargs, *arguments.args)]
    left, right, filled = first, len(positional) - len(arguments.defaults), set[str | None]()
    for call in decorators:
        if not isinstance(call, ast.Call):
            continue
        if _last_name(call.func) == "parametrize":
            if _argnames(call) is None:
                return
        elif _last_name(call.func) == "given":  # of Hypothesis
            right -= len(call.args)
        elif _passes_mock(call):
            left += 1
        filled.update(keyword.arg for keyword in call.keywords)
    keywords = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    names = [*positional[left : max(left, right)], *(parameter.arg for parameter, default in keywords if not default)]
    yield from (name for name in names if name not in filled)


def _passes_mock(call: ast.Call) -> bool:
    """Return whether a decorator is a ``patch`` or ``patch.object`` that passes its mock as an argument."""
    is_object = isinstance(call.func, ast.Attribute) and call.func.attr == "object"
    called = call.func.value if is_object and isinstance(call.func, ast.Attribute) else call.func
    has_new = len(call.args) > 1 + is_object or any(keyword.arg == "new" for keyword in call.keywords)
    return _last_name(called) == "patch" and not has_new


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _texts(nodes: Iterable[ast.AST]) -> Iterator[str]:
    return (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
