"""Base classes of context managers that close themselves, with or without a warning if nobody has closed them."""

from __future__ import annotations

import os
import warnings
from types import TracebackType
from typing import Any, TypeVar

Self = TypeVar("Self", bound="Closing")


class Closing:
    """A context manager that calls its own :meth:`close` at the end of the block."""

    __slots__ = ()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close what this object holds open."""
        raise NotImplementedError

    def __reduce__(self) -> str | tuple[Any, ...]:
        # A copy would have the same descriptors, and close them.
        raise TypeError(f"a {type(self).__name__} cannot be copied or pickled: open another one")


class WarnsUnclosed(Closing):
    """Closes itself, with a ResourceWarning, when it is collected without having been closed.

    `_closed` becomes False when there is something to close. `_pid`, if set, is the process that opened the object: a
    forked child closes its copy without a warning. `_usage` is the ``with`` statement that the warning recommends.
    """

    _closed = True
    _pid: int | None = None
    _usage: str

    def __del__(self) -> None:
        if not self._closed:
            if self._pid in (None, os.getpid()):
                warnings.warn(f"unclosed {self!r}: close it, or use `with {self._usage}`", ResourceWarning, 2, self)
            self.close()
