"""The problems of a value: what is wrong, what is probably a mistake, and how many more problems there are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from vethlib.agent.limits import Limits
from vethlib.errors import InvalidValue, shown

__all__ = [
    "LISTS",
    "MOST_PROBLEMS",
    "InvalidInterface",
    "MoreProblems",
    "Remark",
    "detached",
    "in_public",
    "too_many",
]

MOST_PROBLEMS = 100  # problems that an interface keeps; Limits.problems is the number of those shown

P = TypeVar("P", bound=InvalidValue)


class Remark(NamedTuple):
    """A part of a value that is accepted but probably a mistake: a stable code, the fields, and a text."""

    code: str
    fields: tuple[str, ...]
    text: str


class MoreProblems(InvalidValue):
    """The unlisted problems of a value; ``value`` is their number."""

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__("interface", count, f"and {count} more {'problem' if count == 1 else 'problems'}")

    def __str__(self) -> str:
        return f"… {self.hint}"


class InvalidInterface(InvalidValue):
    """An interface is invalid. ``name`` is its name, ``problems`` are up to a hundred problems."""

    def __init__(self, name: str, problems: Iterable[InvalidValue]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        super().__init__(first.field, first.value, first.hint)
        self.name = name

    def __str__(self) -> str:
        name = repr(str(self.name)[:MOST_PROBLEMS]) if isinstance(self.name, str) else shown(self.name)
        return f"interface {name}: " + "; ".join(map(str, self.problems))


def detached(problem: P) -> P:
    """Return a caught problem that is to be kept, without its traceback and its context.

    They refer to the frames in which it was raised, and thereby to everything that was being read there.
    """
    problem.__cause__ = problem.__context__ = None
    return problem.with_traceback(None)


def in_public(problems: Sequence[InvalidValue], limits: Limits) -> str:
    """Return a reason that everybody may read: the first problems, and the number of the rest (up to a million)."""
    listed = [problem.public for problem in problems[: limits.problems]]
    rest = problems[limits.problems :]
    more = sum(problem.count if isinstance(problem, MoreProblems) else 1 for problem in rest)
    return "; ".join([*listed, *([str(MoreProblems(more))] if more else [])])


LISTS: Final = {
    "ip_addresses": ("addresses", "addresses"),
    "routes": ("routes", "routes"),
    "neighbours": ("neighbours", "neighbours"),
    "altnames": ("altnames", "names"),
    "sysctls": ("sysctls", "settings"),
}
"""The fields with many values: the limit on their number, and what they are."""


def too_many(fields: Mapping[str, Any], limits: Limits) -> Iterator[InvalidValue]:
    """Yield the problem of each of these fields of one interface that has more values than the limit."""
    for field, (limit, what) in LISTS.items():
        if (count := len(fields.get(field, ()))) > (most := getattr(limits, limit)):
            yield InvalidValue(field, count, f"must be at most {most} {what} (limit {limit})")
