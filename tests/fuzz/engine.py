"""Try cases on a target, and judge the results.

1. A case is bytes, made from the seeds of a target by its mutation; the random numbers begin at a seed that is told.
2. It is a finding if anything is raised but what the reader documents, if it takes more CPU time than the target's
   bound (in each of three tries: the machine may be busy with others), or if it makes the process grow by more than
   the target's bound.
3. A case whose end is of a new kind (another exception, raised at another line) is mutated further. This is what takes
   the place of coverage: a try costs no more than the call.
4. A finding is made smaller as long as it ends in the same way, and written to a file that can be tried again.
"""

from __future__ import annotations

import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2s
from pathlib import Path
from random import Random
from types import FrameType, TracebackType

__all__ = ["CORPUS", "Campaign", "Finding", "Target", "corpus", "file_name", "judge"]

CORPUS = Path(__file__).parent / "corpus"

Mutation = Callable[[Random, Sequence[bytes]], bytes]

_HANGS = 10.0  # seconds of CPU after which a case is ended
_INTERESTING = 512  # cases of a target that are kept to be mutated further
_SHRINKING = 2.0  # seconds


@dataclass(frozen=True)
class Target:
    """Something that reads. `refuses` are the exceptions it documents; a case may take `seconds` of CPU, and `memory`
    in bytes.
    """

    name: str
    run: Callable[[bytes], object]
    mutation: Mutation
    seeds: tuple[bytes, ...]
    refuses: tuple[type[Exception], ...] = ()
    seconds: float = 1.0
    memory: int = 64 << 20


@dataclass(frozen=True)
class Finding:
    """A case, and what is wrong with its result."""

    target: str
    case: bytes
    problem: str
    details: str = ""


class _Hangs(BaseException):
    """A case that goes on and on; no reader catches it."""


@dataclass
class Campaign:
    """The cases of one target. `findings` has one for each kind of end."""

    target: Target
    random: Random
    tried: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    findings: dict[str, Finding] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._pool = [*self.target.seeds, *(case for _, case in corpus(self.target.name))]
        self._kinds: set[str] = set()

    def run(self, *, seconds: float = 0.0, cases: int = 0) -> None:
        """Try that many cases, or as many as there is time for."""
        began = time.monotonic()
        with _hanging_is_ended():
            while self.tried < cases or time.monotonic() - began < seconds:
                self._try(self.target.mutation(self.random, self._pool))
        self.seconds += time.monotonic() - began

    def _try(self, case: bytes) -> None:
        self.tried += 1
        kind, finding, took = _judge(self.target, case)
        self.slowest = max(self.slowest, took)
        if kind in self._kinds:
            return
        self._kinds.add(kind)
        if finding is not None:
            self.findings[kind] = _shrunk(self.target, kind, finding)
        elif len(self._pool) < _INTERESTING and len(case) < 1 << 18:
            self._pool.append(case)


def judge(target: Target, case: bytes) -> Finding | None:
    """What is wrong with one case; None if nothing is."""
    with _hanging_is_ended():
        return _judge(target, case)[1]


def corpus(target: str) -> list[tuple[str, bytes]]:
    """The cases that are kept for a target, by their names."""
    return [(path.name, path.read_bytes()) for path in sorted((CORPUS / target).glob("*")) if path.is_file()]


def _judge(target: Target, case: bytes) -> tuple[str, Finding | None, float]:
    """The kind of end, what is wrong with it, and the CPU seconds it took."""
    kind, problem, details, took = _end(target, case)
    for _ in range(2):
        if problem or took <= target.seconds:
            break
        kind, problem, details, again = _end(target, case)
        took = min(took, again)
    if not problem and took > target.seconds:
        kind = "slow"
        problem = f"takes {took:.2f} s of CPU for {len(case)} bytes, and may take {target.seconds:g}"
    return kind, Finding(target.name, case, problem, details) if problem else None, took


def _end(target: Target, case: bytes) -> tuple[str, str, str, float]:
    problem = details = ""
    _forget_peak()
    most = _peak()
    signal.setitimer(signal.ITIMER_VIRTUAL, _HANGS)
    began = time.thread_time()
    try:
        result = target.run(case)
    except target.refuses as error:
        kind = _kind(error)
    except (_Hangs, Exception) as error:
        kind = _kind(error)
        hangs = f"does not end in {_HANGS:g} s of CPU"
        problem = hangs if isinstance(error, _Hangs) else f"{type(error).__name__}: {error}"[:300]
        details = traceback.format_exc(limit=-6)
    else:
        kind = type(result).__name__
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    took = time.thread_time() - began
    grown = _peak() - most
    if not problem and grown > target.memory:
        kind, problem = "large", f"takes {grown >> 20} MiB for {len(case)} bytes, and may take {target.memory >> 20}"
    return kind, problem, details, took


def _forget_peak() -> None:
    """Let the peak be what is taken now (clear_refs, proc(5)), so that a large case hides no other."""
    with open("/proc/self/clear_refs", "wb", buffering=0) as file:
        file.write(b"5")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _kind(error: BaseException) -> str:
    """Which exception, and where it was raised."""
    at: TracebackType | None = error.__traceback__
    if at is None:
        return type(error).__name__
    while at.tb_next is not None:
        at = at.tb_next
    return f"{type(error).__name__} at {at.tb_frame.f_code.co_filename}:{at.tb_lineno}"


def _shrunk(target: Target, kind: str, finding: Finding) -> Finding:
    """The finding with as few bytes as can be had in a while: pieces are left out, half as long each time."""
    until = time.monotonic() + _SHRINKING
    best = finding
    size = len(best.case) // 2
    while size and time.monotonic() < until:
        for start in range(0, len(best.case), size):
            less = best.case[:start] + best.case[start + size :]
            found_kind, found, _ = _judge(target, less)
            if found is not None and found_kind == kind:
                best = found
                break
            if time.monotonic() > until:
                break
        else:
            size //= 2
    return best


@contextmanager
def _hanging_is_ended() -> Iterator[None]:
    def end(_number: int, _frame: FrameType | None) -> None:
        raise _Hangs

    before = signal.signal(signal.SIGVTALRM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGVTALRM, before)


def file_name(finding: Finding) -> str:
    """What a file with its case is called."""
    return f"{finding.target}-{blake2s(finding.case, digest_size=4).hexdigest()}"
