"""The needs of a test that a machine may not meet, as marks.

needs_kernel("6.2"), needs_cpus(2), needs_module("sch_netem"), and needs_file("/proc/sys/kernel/ns_last_pid") for what a
kernel may be configured without. A test with such a mark is skipped where the kernel is older, the CPUs are fewer, and
so on, with that reason. The skip is not `excused` if the machine has it after all, but this process cannot use it.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

__all__ = ["Lack", "kernel_is", "lack"]

# A command that shows, in a separate network namespace, whether a module can be used.
_USES = {
    "sch_netem": "tc qdisc add dev lo root netem",
    "sch_tbf": "tc qdisc add dev lo root tbf rate 1mbit burst 10kb latency 1ms",
    "8021q": "ip link add link lo name v1 type vlan id 1",
    "vrf": "ip link add v1 type vrf table 10",
    "bridge": "ip link add v1 type bridge",
    "dummy": "ip link add v1 type dummy",
    "macvlan": "ip link add link lo name v1 type macvlan",
    "vxlan": "ip link add v1 type vxlan id 1 dstport 4789",
    "tun": "ip tuntap add v1 mode tap",
    "nf_tables": shlex.join([sys.executable, str(Path(__file__).with_name("live") / "firewall.py")]),
}


@dataclass(frozen=True, slots=True)
class Lack:
    """Something that a test needs but that is unavailable; `excused` if the machine does not have it."""

    reason: str
    excused: bool


def lack(marks: Iterable[pytest.Mark]) -> Lack | None:
    """Return the first need of a test, given by its marks, that is not met."""
    for mark in marks:
        if check := _CHECKS.get(mark.name):
            (argument,) = mark.args
            if found := check(argument):
                return found
    return None


def kernel_is(version: str) -> bool:
    """Return whether the kernel has this version or a later one."""
    return _numbers(platform.release()) >= _numbers(version)


def _kernel(version: str) -> Lack | None:
    return None if kernel_is(version) else Lack(f"needs Linux {version}", True)


def _numbers(release: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", release)
    assert found, release
    return int(found[1]), int(found[2])


def _cpus(number: int) -> Lack | None:
    if len(os.sched_getaffinity(0)) >= number:
        return None
    return Lack(f"needs {number} CPUs", (os.cpu_count() or 1) < number)


def _file(path: str) -> Lack | None:
    return None if Path(path).exists() else Lack(f"needs {path}", True)


@cache
def _module(name: str) -> Lack | None:
    command = ["unshare", "--net", *shlex.split(_USES[name])]
    if subprocess.run(command, capture_output=True, check=False).returncode == 0:
        return None
    return Lack(f"needs the kernel module {name}", not _machine_has(name))


def _machine_has(name: str) -> bool:
    """Return whether the module is loaded, or can be loaded."""
    if Path("/sys/module", name).exists():
        return True
    for listed in ("modules.dep", "modules.builtin"):
        try:
            files = Path("/lib/modules", platform.release(), listed).read_text()
        except OSError:
            continue
        if re.search(rf"/{re.escape(name)}\.ko", files.replace("-", "_")):
            return True
    return False


_CHECKS: dict[str, Callable[..., Lack | None]] = {
    "needs_kernel": _kernel,
    "needs_cpus": _cpus,
    "needs_module": _module,
    "needs_file": _file,
}
