"""The problems of a value of the store, with the place where it was read."""

from __future__ import annotations

from vethlib.agent.config.northbound import Parsed
from vethlib.errors import InvalidValue

__all__ = ["problems_of"]


class _Located(InvalidValue):
    """A problem of a value, with the place where the value was read."""

    def __init__(self, problem: InvalidValue, source: str) -> None:
        super().__init__(problem.field, problem.value, problem.hint)
        self.args = (f"{source}: {problem}",)
        self._public = f"{source}: {problem.public}"

    @property
    def public(self) -> str:
        return self._public


def problems_of(parsed: Parsed) -> tuple[InvalidValue, ...]:
    """Return the problems of a value; the first names the source, unless that is clear from its text or the name."""
    source, problems = parsed.source, parsed.problems
    if not problems or source in str(problems[0]) or source.endswith(f"/{parsed.name}"):
        return problems
    return (_Located(problems[0], source), *problems[1:])
