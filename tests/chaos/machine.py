"""How long the machine itself keeps a program waiting that nobody attacks: what other tests run beside these.

``python -m tests.chaos.machine FILE SECONDS`` prints the longest of its rounds, in seconds. Each does what a repair
consists of: it creates a pair, in a namespace of its own, deletes it, and writes a file.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from vethlib import End, Session, Veth, ns

PAUSE = 0.1


def longest(file: Path, seconds: float) -> float:
    end = time.monotonic() + seconds
    worst = 0.0
    with ns.Netns.anonymous() as netns, netns.entered(), Session() as session:
        while (began := time.monotonic()) < end:
            session.create(Veth(End("a"), End("b")))
            session.delete("a")
            file.write_text("a")
            worst = max(worst, time.monotonic() - began)
            time.sleep(PAUSE)
    return worst


if __name__ == "__main__":
    print(longest(Path(sys.argv[1]), float(sys.argv[2])))
