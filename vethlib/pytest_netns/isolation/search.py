"""Search the files to be collected for uses of the plugin, in the same way as pytest searches for tests."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from vethlib.pytest_netns.names import FIXTURES

from .mentions import MARKER, NOTHING, Mentions, look

__all__ = ["find_use"]

_OURS = ("vethlib.pytest_netns", "vethlib.pytest_netns.plugin")
_LARGEST = 1 << 20  # bytes of a source file that are read


def find_use(config: pytest.Config, names: Collection[str] = FIXTURES | {MARKER}) -> str:
    """Return a use of one of the `names`, such as "tests/test_it.py uses topology", or ""."""
    return _Search(config).find(names)


class _Search:
    """A search, which reads each file once."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._root = config.rootpath
        self._here = config.invocation_params.dir
        self._patterns = [*config.getini("python_files"), "conftest.py"]
        self._skipped = config.getini("norecursedirs")
        self._functions = config.getini("python_functions")
        self._classes = config.getini("python_classes")
        self._ignored = [os.path.abspath(self._here / path) for path in config.getoption("ignore") or ()]
        self._ignored_globs = [os.path.abspath(self._here / path) for path in config.getoption("ignore_glob") or ()]
        self._mentions: dict[Path, Mentions] = {}
        self._of_plugins, self._of_loaded = _given_by_plugins(config)

    def find(self, names: Collection[str]) -> str:
        for name in self._config.getini("usefixtures"):
            if name in names:
                return f"the setting usefixtures has {name}"
        for path in self._to_collect():
            asked = [used for used in self._look(path).asked if used in names]
            if asked and (name := next((used for used in asked if used not in self._given_elsewhere(path)), "")):
                return f"{path.relative_to(self._root) if path.is_relative_to(self._root) else path} uses {name}"
        return ""

    def _look(self, path: Path) -> Mentions:
        if path not in self._mentions:
            source = _source(path)
            self._mentions[path] = look(source, self._is_test, self._is_test_class) if source else NOTHING
        return self._mentions[path]

    def _is_test(self, name: str) -> bool:
        return _begins_or_matches(name, self._functions)

    def _is_test_class(self, name: str) -> bool:
        return _begins_or_matches(name, self._classes)

    def _given_elsewhere(self, path: Path) -> frozenset[str]:
        """Return the names that mean other fixtures in this file: those of the project's conftest.py and of plugins."""
        above = (directory / "conftest.py" for directory in self._directories(path))
        return self._of_plugins.union(
            self._imported(path),
            *(self._look(conftest).given | self._imported(conftest) for conftest in above if conftest != path),
        )

    def _imported(self, path: Path) -> frozenset[str]:
        """Return the names that a file has, or may have, by ``import *`` or by calls that define fixtures."""
        if path in self._of_loaded:
            return self._of_loaded[path] - self._look(path).given
        return FIXTURES if self._look(path).imports_all else frozenset()

    def _directories(self, path: Path) -> Iterator[Path]:
        return (directory for directory in path.parents if directory.is_relative_to(self._root))

    def _to_collect(self) -> Iterator[Path]:
        """Yield the Python files that will be collected, and the conftest.py files that apply to them."""
        for argument in self._config.args:
            path = self._path(str(argument).partition("::")[0])
            yield from (directory / "conftest.py" for directory in self._directories(path))
            if path.is_file():
                yield path
            else:
                yield from self._below(path)

    def _path(self, argument: str) -> Path:
        path = Path(os.path.abspath(self._here / argument))
        if path.exists() or not self._config.getoption("pyargs"):
            return path
        try:
            spec = find_spec(argument)
        except (ImportError, AttributeError, ValueError):
            return path
        if spec is not None and spec.submodule_search_locations:
            return Path(next(iter(spec.submodule_search_locations)))
        return Path(spec.origin) if spec is not None and spec.origin else path

    def _below(self, root: Path) -> Iterator[Path]:
        for directory, directories, files in os.walk(root):
            directories[:] = sorted(name for name in directories if self._is_entered(os.path.join(directory, name)))
            for name in sorted(files):
                path = os.path.join(directory, name)
                if _matches(path, self._patterns) and not self._is_ignored(path):
                    yield Path(path)

    def _is_entered(self, directory: str) -> bool:
        is_environment = os.path.exists(os.path.join(directory, "pyvenv.cfg"))
        return not (is_environment or _matches(directory, self._skipped) or self._is_ignored(directory))

    def _is_ignored(self, path: str) -> bool:
        return path in self._ignored or any(fnmatch(path, pattern) for pattern in self._ignored_globs)


def _source(path: Path) -> bytes:
    """Return the content of a regular file, b"" if it is too large or cannot be read.

    Files of other kinds are not opened, because pytest does not collect them either: reading a pipe or a device may
    never end, and opening it may have side effects.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return b""
        with open(path, "rb", opener=_open_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # replaced after the check
                return b""
            source = file.read(_LARGEST + 1)  # st_size may be wrong: the file may grow, and files in /proc report 0
    except OSError:
        return b""
    return source if len(source) <= _LARGEST else b""


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _matches(path: str, patterns: list[str]) -> bool:
    """Match like pytest: a pattern with a "/" applies to the end of the path, any other to the name."""
    name = os.path.basename(path)
    return any(fnmatch(path, f"*/{pattern}") if "/" in pattern else fnmatch(name, pattern) for pattern in patterns)


def _begins_or_matches(name: str, patterns: list[str]) -> bool:
    return any(name.startswith(pattern) or fnmatch(name, pattern) for pattern in patterns)


def _given_by_plugins(config: pytest.Config) -> tuple[frozenset[str], dict[Path, frozenset[str]]]:
    """Return those of the plugin's names that other plugins also define, and those that each loaded conftest.py has.

    A conftest.py applies to its directory only.
    """
    everywhere: set[str] = set()
    of_loaded: dict[Path, frozenset[str]] = {}
    for plugin in config.pluginmanager.get_plugins():
        file = getattr(plugin, "__file__", None) or ""
        if getattr(plugin, "__name__", "") in _OURS or not file:
            continue
        # `topology` may be the module of vethlib.
        names = FIXTURES.intersection(name for name, value in vars(plugin).items() if not isinstance(value, ModuleType))
        if os.path.basename(file) == "conftest.py":
            of_loaded[Path(file)] = names
        else:
            everywhere |= names
    return frozenset(everywhere), of_loaded
