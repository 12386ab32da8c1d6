"""Interrupt an operation at every bytecode: the bytecodes are recorded once, then each gets a run that ends there.

KeyboardInterrupt is raised wherever CPython checks for signals (at the entry of a function, a backward jump, the return
from C), and these places differ from one version to the next; so do the handlers that cover them. Code that withstands
an interruption at every bytecode withstands it there, in any version.
"""

from __future__ import annotations

import dis
import gc
import os
import select
import signal
import sys
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache, partial
from itertools import pairwise
from types import CodeType, FrameType
from typing import Any, NamedTuple

from tests.patience import Patience

_TOOL = 4  # a tool id of sys.monitoring; the others are reserved for debuggers, coverage and profilers

_HARMLESS = {
    *("LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_LOAD_FAST", "LOAD_CONST", "LOAD_GLOBAL", "LOAD_DEREF", "LOAD_CLOSURE"),
    *("LOAD_METHOD", "LOAD_ATTR", "PUSH_NULL", "PRECALL", "KW_NAMES", "COPY", "SWAP", "NOP", "RESUME", "EXTENDED_ARG"),
    *("BUILD_TUPLE", "BUILD_LIST", "BUILD_MAP", "BUILD_CONST_KEY_MAP", "BUILD_STRING", "BUILD_SLICE", "FORMAT_VALUE"),
    *("BINARY_SUBSCR", "COMPARE_OP", "CONTAINS_OP", "IS_OP", "UNARY_NOT", "COPY_FREE_VARS", "LIST_TO_TUPLE"),
    *("POP_JUMP_FORWARD_IF_FALSE", "POP_JUMP_FORWARD_IF_TRUE", "POP_JUMP_IF_FALSE", "POP_JUMP_IF_TRUE"),
    *("POP_JUMP_FORWARD_IF_NONE", "POP_JUMP_FORWARD_IF_NOT_NONE", "POP_JUMP_IF_NONE", "POP_JUMP_IF_NOT_NONE"),
    *("JUMP_IF_FALSE_OR_POP", "JUMP_IF_TRUE_OR_POP"),
}
"""Bytecodes that change nothing but the stack of their frame, which an interruption discards.

A jump among them is followed by the next bytecode only if it does not jump.
"""

__all__ = ["Boundary", "Interrupt", "boundaries", "distinct", "in_processes", "interrupted"]


class Interrupt(BaseException):
    """The exception that a signal handler raises."""


class Boundary(NamedTuple):
    """The moment before a bytecode is executed: which bytecode, and for how many times in the run."""

    code: CodeType
    offset: int
    visit: int

    def __str__(self) -> str:
        line = next((line for start, end, line in self.code.co_lines() if start <= self.offset < end), None)
        return f"{self.code.co_qualname} in {self.code.co_filename}:{line}, offset {self.offset}, visit {self.visit}"


def boundaries(operation: Callable[[], object], belongs: Callable[[CodeType], bool]) -> list[Boundary]:
    """All boundaries in the functions that belong, in the order in which the operation reaches them."""
    found: list[Boundary] = []
    visits: Counter[tuple[CodeType, int]] = Counter()

    def note(code: CodeType, offset: int) -> None:
        visits[code, offset] += 1
        found.append(Boundary(code, offset, visits[code, offset]))

    _watch(operation, belongs, note)
    return found


def distinct(found: Iterable[Boundary]) -> list[Boundary]:
    """Return all except those with the same state as the one before: between the two, nothing was changed."""
    return [one for one in found if one.offset not in _alike(one.code)]


@cache
def _alike(code: CodeType) -> frozenset[int]:
    bytecode: Any = dis.Bytecode(code)
    handlers = [(entry.start, entry.end, entry.target) for entry in bytecode.exception_entries]

    def covering(offset: int) -> list[int]:
        return [target for start, end, target in handlers if start <= offset < end]

    return frozenset(
        after.offset
        for before, after in pairwise(bytecode)
        if before.opname in _HARMLESS and not after.is_jump_target and covering(before.offset) == covering(after.offset)
    )


def interrupted(operation: Callable[[], object], at: Boundary) -> bool:
    """Run the operation with an interruption there; return whether it was raised and the operation passed it on."""
    visits = 0

    def interrupt(code: CodeType, offset: int) -> None:
        nonlocal visits
        if offset == at.offset:
            visits += 1
            if visits == at.visit:
                raise Interrupt

    try:
        _watch(operation, lambda code: code is at.code, interrupt)
    except Interrupt:
        return True
    return False


def _watch(
    operation: Callable[[], object], belongs: Callable[[CodeType], bool], note: Callable[[CodeType, int], None]
) -> None:
    """Run the operation, and call `note` before every bytecode of the functions that belong, in this thread.

    No context manager of contextlib does it, because its own functions may belong: interrupting them would leave the
    trace function of coverage, or the tool id, behind.
    """
    watch = _monitor if sys.version_info >= (3, 12) else _trace
    watch(operation, belongs, note)


def _trace(
    operation: Callable[[], object], belongs: Callable[[CodeType], bool], note: Callable[[CodeType, int], None]
) -> None:
    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if event == "call":
            if not belongs(frame.f_code):
                return None
            frame.f_trace_lines = False
            frame.f_trace_opcodes = True
        elif event == "opcode":
            note(frame.f_code, frame.f_lasti)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        operation()
    finally:
        sys.settrace(before)


def _monitor(
    operation: Callable[[], object], belongs: Callable[[CodeType], bool], note: Callable[[CodeType, int], None]
) -> None:
    """Do the same as :func:`_trace`, which misses bytecodes since Python 3.12."""
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]
    instruction = monitoring.events.INSTRUCTION
    thread = threading.get_ident()

    def see(code: CodeType, offset: int) -> Any:
        if not belongs(code):
            return monitoring.DISABLE
        if threading.get_ident() == thread:
            note(code, offset)
        return None

    monitoring.use_tool_id(_TOOL, __name__)
    monitoring.register_callback(_TOOL, instruction, see)
    monitoring.restart_events()
    monitoring.set_events(_TOOL, instruction)
    try:
        operation()
    finally:
        monitoring.set_events(_TOOL, 0)
        monitoring.free_tool_id(_TOOL)


def in_processes(count: int, work: Callable[[int], list[str]], seconds: float) -> list[str]:
    """Do the work in this many processes at once, each with its number; return the findings of all.

    Each process is killed after this many seconds, which is also a finding.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about a fork beside threads: the child needs none
        forked = [_forked(partial(work, number)) for number in range(count)]
    said = _all_said([reader for _, reader in forked], seconds)
    found: list[str] = []
    for number, (pid, reader) in enumerate(forked):
        if said[reader] is None:
            os.kill(pid, signal.SIGKILL)
        found += (said[reader] or b"").decode().splitlines()
        os.close(reader)
        if status := os.waitpid(pid, 0)[1]:
            found.append(f"process {number} ended with {os.waitstatus_to_exitcode(status)}")
    return found


def _all_said(readers: Iterable[int], seconds: float) -> dict[int, bytes | None]:
    """Return everything that is read from these pipes; None for a pipe that has not ended within these seconds."""
    read: dict[int, bytes] = {}
    unread = dict.fromkeys(readers, b"")
    patience = Patience(seconds)
    while unread and not patience.is_over():
        for reader in select.select(list(unread), [], [], 0.5)[0]:
            if chunk := os.read(reader, 65536):
                unread[reader] += chunk
            else:
                read[reader] = unread.pop(reader)
    return dict.fromkeys(unread) | read


def _forked(work: Callable[[], list[str]]) -> tuple[int, int]:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    try:
        gc.freeze()  # objects of earlier tests are not garbage of this process
        sys.settrace(None)
        signal.setitimer(signal.ITIMER_REAL, 0)
        with open(writer, "w", encoding="utf-8") as output:
            try:
                found = work()
            except BaseException:
                found = traceback.format_exc().splitlines()
            output.writelines(f"{line}\n" for line in found)
        os._exit(0)
    finally:
        os._exit(1)
