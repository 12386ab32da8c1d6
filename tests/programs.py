"""Programs that a test starts: they do not outlive it, and a test that has failed does not wait for them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import AnyStr

__all__ = ["attended"]


@contextmanager
def attended(process: subprocess.Popen[AnyStr]) -> Iterator[subprocess.Popen[AnyStr]]:
    """Wait for the program at the end, as `with Popen(…)` does; but if the test has failed, kill it first.

    Nobody has told it to end then, and what the test has to say of its failure would never be heard.
    """
    with process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise
