"""Names from before 0.2, of modules and of objects in them: using one warns and returns the current object."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def former(module: str, packages: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a former module; `packages` maps its public names to their current packages."""

    def import_name(name: str) -> Any:
        if name not in packages:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        package = packages[name]
        text = f"{module}.{name} has moved: import it from {package}"
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        return getattr(import_module(package), name)

    return import_name


def renamed(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a module with renamed objects; `names` maps former names to current ones."""

    def current(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        now = names[name]
        warnings.warn(f"{module}.{name} is now {module}.{now}", DeprecationWarning, stacklevel=2)
        return getattr(import_module(module), now)

    return current
