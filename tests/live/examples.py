"""Run those examples that are test files, in the same way as their readers do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["EXAMPLES", "run_tests"]

EXAMPLES = Path(__file__).parents[2] / "examples"

_WITHOUT = ("cacheprovider", "randomly", "hypothesispytest", "asyncio", "xdist", "cov", "timeout")
_PYTEST = [
    *(sys.executable, "-m", "pytest", "-q", "-W", "error", "-c", "/dev/null", "--rootdir", str(EXAMPLES)),
    *(word for name in _WITHOUT for word in ("-p", f"no:{name}")),
    "--netns-impair=userspace",  # not every kernel has netem
]


def run_tests(*files: str, environment: Mapping[str, str] | None = None) -> str:
    """Run these files of examples/, all at once, because each run costs a second; return what pytest prints.

    AssertionError if a test fails.
    """
    paths = [str(EXAMPLES / file) for file in files]
    done = subprocess.run(
        [*_PYTEST, *paths],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,  # less than what a test may take
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
