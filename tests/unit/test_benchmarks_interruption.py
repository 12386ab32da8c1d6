"""A benchmark ends with its first signal, wherever the program is at that moment."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BEGIN = """
import os, signal, sys, time, weakref
from benchmarks.interruption import Interrupted, raise_on_signals
raise_on_signals()
class Thing:
    pass
class Ending:
    def __del__(self):
        signal.raise_signal(signal.{name})
        pass
def callback(_):
    signal.raise_signal(signal.{name})
    pass
def finalizer():
    ending = Ending()
    del ending
def weak_reference():
    thing = Thing()
    reference = weakref.ref(thing, callback)
    del thing
def plain():
    signal.raise_signal(signal.{name})
try:
    {where}()
    time.sleep(20)
    print("nothing ended it")
except Interrupted as interrupted:
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.raise_signal(other)
    print(interrupted.number)
"""


def _run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=50
    )


@pytest.mark.parametrize("where", ["plain", "finalizer", "weak_reference"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_once_even_where_no_exception_can_be_raised(number: signal.Signals, where: str) -> None:
    done = _run(BEGIN.format(name=number.name, where=where))
    assert (done.stdout, done.stderr) == (f"{int(number)}\n", "")


def test_other_exceptions_that_cannot_be_raised_are_reported_as_ever() -> None:
    done = _run(
        "from benchmarks.interruption import raise_on_signals\n"
        "raise_on_signals()\n"
        "class Ending:\n"
        "    def __del__(self):\n"
        "        raise ValueError('as ever')\n"
        "Ending()\n"
    )
    assert done.returncode == 0
    assert "ValueError: as ever" in done.stderr
