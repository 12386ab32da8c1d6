"""``python -m benchmarks.fleet.become``: create namespaces, report that, and become the command that is received."""

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
