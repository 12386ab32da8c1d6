"""The cost of importing a library in an interpreter that has already imported socket and struct."""

from __future__ import annotations

import statistics
import subprocess
import sys

from .protocol import Report, Work

__all__ = ["import_of"]

# VmRSS is inexact by some pages per CPU; smaps_rollup is exact (proc_pid_status(5)).
_PROGRAM = """
import socket, struct
import resource, time  # small ones, written in C; json would bring re, which libraries import too

def seen():
    with open("/proc/self/smaps_rollup") as maps:
        resident = next(int(line.split()[1]) for line in maps if line.startswith("Rss:"))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return time.monotonic(), usage.ru_utime, usage.ru_stime, resident / 1024

before = seen()
import {module}
print(*(now - then for now, then in zip(seen(), before)))
"""


def import_of(module: str) -> Work:
    """The workload: N interpreters import `module`, one after the other."""

    def work(report: Report, n: int, _queues: int) -> None:
        command = [sys.executable, "-c", _PROGRAM.format(module=module)]
        # Once in advance, untimed, so that the files are in memory.
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        runs = [
            [float(word) for word in subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.split()]
            for _ in range(n)
        ]
        wall, user, system, resident = zip(*runs, strict=True)
        report.add("import", sum(wall), sum(user), sum(system))
        report.figures["rss_mib"] = statistics.median(resident)

    return work
