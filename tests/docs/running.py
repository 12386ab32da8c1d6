"""Run a page: each step in turn, until one does not do what the page describes."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from .page import ROOT, Block, Page, Step, differs

__all__ = ["run_page"]

_PATIENCE = 60.0  # seconds for a step
_SOON = 60.0  # seconds until what runs in the background has printed what it is to print
_OURS = re.compile(r"VETHLIB_|MICROSERVICE_LABEL$|NO_COLOR$|COV_|COVERAGE_|PYTEST_")
# Not every kernel has netem, without which an example with a slow wire would be skipped.
_PYTEST = "python -m pytest -q -W error --strict-markers --rootdir . -o netns_impair=userspace " + " ".join(
    f"-p no:{plugin}" for plugin in ("cacheprovider", "randomly", "asyncio", "hypothesispytest", "xdist", "cov")
)
_LOOKS = re.compile(r"(sleep [\d.]+; *)?vethctl (status|show|list|get|graph|describe|netns list)\b[^|<>;&]*$")
"""What only looks, and may be repeated: how long a page says to wait is not how long a busy machine takes."""
_KEEP_NAMES = "ls /run/netns >.netns-before"
# The kernel takes its time to remove what a deleted namespace contains. The pairs go first: the next example may be one
# that uses the same names.
_DROP_NAMES = (
    "for name in $(ls /run/netns | comm -13 .netns-before -); do "
    "ip -n $name -brief link show type veth | while read -r link rest; do "
    "ip -n $name link delete ${link%@*} 2>/dev/null; done; "
    "ip netns delete $name; done; rm .netns-before"
)


def run_page(
    page: Page, scratch: Path, environment: dict[str, str] | None = None, *, own_processes: bool = True
) -> int:
    """Run what is to be run of a page, in an empty directory; how many steps. AssertionError says which is wrong.

    See world.py for `own_processes`.
    """
    (scratch / "examples").symlink_to(ROOT / "examples")
    blocks = [block for block in page.blocks() if block.runs]
    steps = [step for block in blocks if not block.tests for step in _steps(block, scratch)]
    if tests := [block for block in blocks if block.tests]:
        steps.append(_pytest(tests, scratch))
    with _Shell(scratch, environment or {}, own_processes) as shell:
        for step in steps:
            if why := shell.run(step):
                raise AssertionError(f"{page.name}:{step.line}: {why}{shell.remark()}")
    return len(steps)


def _steps(block: Block, scratch: Path) -> Iterable[Step]:
    if block.language == "console":
        return block.steps()
    file = scratch / f"line_{block.line}.py"
    file.write_text(block.text + "\n")
    # Each example is to work for who has run another one before: the named namespaces it makes go with it.
    command = f"{_KEEP_NAMES}; python {file.name}; code=$?; {_DROP_NAMES}; (exit $code)"
    return [Step(block.line, command, block.prints)]


def _pytest(blocks: Sequence[Block], scratch: Path) -> Step:
    """One run for all of the page's files of tests, because each costs a second before its first test."""
    for block in blocks:
        (scratch / f"test_line_{block.line}.py").write_text(block.text + "\n")
    return Step(blocks[0].line, f"{_PYTEST} test_line_*.py", f"…\n{sum(block.tests for block in blocks)} passed in …")


class _Shell:
    """A bash in a world of its own; what it has started ends with it."""

    def __init__(self, scratch: Path, environment: dict[str, str], own_processes: bool) -> None:
        self._scratch = scratch
        self._steps = scratch.parent / f"{scratch.name}-steps"  # out of the page's sight
        self._steps.mkdir()
        self._count = 0
        told, telling = os.pipe()
        inherited = {name: value for name, value in os.environ.items() if not _OURS.match(name)}
        programs = Path(sys.executable).parent
        own = {
            "PATH": f"{programs}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
            "COLUMNS": "120",
            "HOME": str(scratch),
        }
        enter = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.docs.world import main; "
            f"main(own_processes={own_processes})"
        )
        with (self._steps / "stderr").open("wb") as stderr:
            self._bash = subprocess.Popen(
                [sys.executable, "-c", enter],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                cwd=scratch,
                env=inherited | own | environment,
                pass_fds=[telling],
                start_new_session=True,
                text=True,
            )
        os.close(telling)
        self._told, self._telling = told, telling

    def __enter__(self) -> _Shell:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.kill(self._bash.pid, signal.SIGTERM)
        os.waitid(os.P_PID, self._bash.pid, os.WEXITED | os.WNOWAIT)  # its number is not anybody else's before wait()
        # What a bash outside of a pid namespace has left: without job control that is in its own process group.
        os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.wait()
        assert self._bash.stdin
        self._bash.stdin.close()
        os.close(self._told)

    def remark(self) -> str:
        """What the shell itself has said, to follow what is wrong."""
        said = _read(self._steps / "stderr").rstrip()
        return f"\n--- the page's shell says\n{said}" if said else ""

    def run(self, step: Step) -> str:
        """Run a step; what is wrong with it, or ""."""
        deadline = time.monotonic() + (_SOON if _LOOKS.match(step.command) else 0)
        while (why := self._run(step)) and time.monotonic() < deadline:
            time.sleep(0.1)
        return why

    def _run(self, step: Step) -> str:
        self._count += 1
        text, out = (self._steps / f"{self._count}.{suffix}" for suffix in ("sh", "out"))
        text.write_text(step.command + "\n")
        assert self._bash.stdin
        self._bash.stdin.write(f'eval "$(<{text})" >{out} 2>&1 </dev/null {self._telling}>&-\n')
        self._bash.stdin.write(f"echo $? >&{self._telling}\n")
        self._bash.stdin.flush()
        code = self._wait()
        printed = _read(out)
        if code is None:
            return _tell(step, "has not ended", printed)
        if code != step.exits:
            return _tell(step, f"ended with {code}, not {step.exits}", printed)
        deadline = time.monotonic() + (_SOON if step.background else 0)
        while step.expected and differs(step.expected, printed):
            if time.monotonic() >= deadline:
                return _tell(step, f"should have printed\n{step.expected}\n--- but", printed)
            time.sleep(0.02)
            printed = _read(out)
        return ""

    def _wait(self) -> int | None:
        """The exit code of the last command, None if it has not ended within reason."""
        ready, _, _ = select.select([self._told], [], [], _PATIENCE)
        if not ready:
            return None
        if answer := os.read(self._told, 100):
            return int(answer)
        raise AssertionError(f"the page's shell has ended: {(self._steps / 'stderr').read_text()}")


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _tell(step: Step, what: str, printed: str) -> str:
    return f"{step.command}\n--- {what}; it printed\n{printed.rstrip() or '(nothing)'}"
