"""Run the cases of a program, one after another, and print the result of each as JSON."""

from __future__ import annotations

import ast
import json
import traceback
from collections.abc import Callable
from pathlib import Path

__all__ = ["CASES", "case", "names_in", "report"]

CASES: list[Callable[[], object]] = []


def case(function: Callable[[], object]) -> Callable[[], object]:
    """Make a function one of the cases."""
    CASES.append(function)
    return function


def names_in(program: Path) -> list[str]:
    """Return the names of the cases in a program that has not been run."""
    functions = [node for node in ast.parse(program.read_text()).body if isinstance(node, ast.FunctionDef)]
    return [
        one.name for one in functions if any(isinstance(by, ast.Name) and by.id == "case" for by in one.decorator_list)
    ]


def report() -> None:
    """Run all cases and print their results: "" for one that has passed."""
    results = {}
    for one in CASES:
        try:
            one()
            results[one.__name__] = ""
        except BaseException:
            results[one.__name__] = traceback.format_exc()
        print(json.dumps(results), flush=True)
