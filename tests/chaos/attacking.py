"""What all attackers have in common: a choice of attacks, repeated until their time is over."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

__all__ = ["batch", "repeat"]


def repeat(attacks: Sequence[Callable[[random.Random], None]], seconds: float, seed: int) -> None:
    """Carry out attacks in random order for so long; those that fail are part of the game. Prints what was done."""
    choose = random.Random(seed)
    done: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        attack = choose.choice(attacks)
        try:
            attack(choose)
        except (OSError, subprocess.SubprocessError) as error:
            done[f"{attack.__name__}: {type(error).__name__}"] += 1
        else:
            done[attack.__name__] += 1
    print(dict(done), file=sys.stderr)


def batch(lines: Iterable[str]) -> None:
    """Have ``ip`` carry out these commands, whatever becomes of each."""
    text = "".join(f"{line}\n" for line in lines)
    subprocess.run(["ip", "-force", "-batch", "-"], input=text.encode(), capture_output=True, check=False, timeout=10)
