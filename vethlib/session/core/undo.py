"""Undoing that always finishes, whatever fails or interrupts it.

How a call ensures that an interruption (a KeyboardInterrupt, any BaseException) leaves nothing half-done:

1. A change is recorded before it is made: each request belongs to an exchange whose account is correct at any bytecode
   (`_nl/sock.py`), and the list of exchanges exists before the first of them is sent.
2. Two nested functions have a handler that undoes. The outer one completes the work of the inner one if that was
   interrupted, or if the interruption came between its handler and its caller. Undoing a change twice is harmless.
3. A function with such a handler has no loop, and its ``try`` has a single call. On Python 3.13 the backward jump of a
   loop is covered by no handler of its function, and that is where the interpreter checks for signals.
4. Every step of undoing runs, whatever the others raise (:func:`undo_all`).

After the outer handler, the change is complete, and nothing is undone. In `create` and `create_many`, that handler is
in the public method, so only the return follows, where no version of Python checks for signals. `set` still closes its
descriptors then, and may wait for the link: the caller of an interrupted `set` may find everything changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

__all__ = ["Step", "note", "undo_all"]

Step: TypeAlias = tuple[Callable[[], object], Callable[[BaseException], object]]
"""A function to run, and a function that is called with its error if it raises one."""


def undo_all(steps: Iterable[Step]) -> None:
    """Run every step, and run a step that is interrupted again. Raises the last interruption when all have run."""
    interruption: BaseException | None = None
    for step, failed in steps:
        interruption = _run(step, failed) or interruption
    if interruption is not None:
        raise interruption


def _run(step: Callable[[], object], failed: Callable[[BaseException], object]) -> BaseException | None:
    """Run one step, and return what interrupted it."""
    try:
        step()
    except Exception as error:
        failed(error)
    except BaseException as interruption:
        _run_again(step, failed)
        return interruption
    return None


def _run_again(step: Callable[[], object], failed: Callable[[BaseException], object]) -> None:
    try:
        step()
    except BaseException as error:
        failed(error)


def note(error: BaseException, text: str) -> None:
    """Add a note to an error, once."""
    if text not in getattr(error, "__notes__", ()):
        error.add_note(text)
