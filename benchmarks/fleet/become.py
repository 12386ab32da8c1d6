"""``python -m benchmarks.fleet.become``: go into namespaces of its own, say so, and become the command it is told."""

from __future__ import annotations

import json
import os
import sys

from vethlib import ns

if __name__ == "__main__":
    ns.isolate()
    print("isolated", flush=True)
    line = sys.stdin.readline()
    if line:
        command = json.loads(line)
        os.execv(command[0], command)
