"""The conditions of a measurement."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Conditions", "Machine", "busy"]


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine and its software."""

    cpu: str
    cpus: int
    memory_gib: float
    kernel: str
    python: str

    @classmethod
    def here(cls) -> Machine:
        """Return this machine."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        kernel, python = f"{platform.system()} {platform.release()}", platform.python_version()
        return cls(_cpu_model(), os.cpu_count() or 1, round(memory, 1), kernel, python)

    def __str__(self) -> str:
        return f"{self.cpu}, {self.cpus} CPUs, {self.memory_gib} GiB; {self.kernel}, Python {self.python}"


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions of one run."""

    machine: Machine
    queues: int  # of each end; 0 for the kernel's default
    repeat: int  # rounds
    load: tuple[float, float]  # the load average before and after
    runs: int
    idle: int  # of the runs: those that began while no other programs were running
    versions: dict[str, str]  # of the contestants
    missing: dict[str, str]  # the reasons why other contestants did not run

    @property
    def queues_text(self) -> str:
        """Describe the number of queues per end."""
        if not self.queues:
            return "the kernel's default number of queues, one per possible CPU"
        return f"{self.queues} queue{'s' if self.queues != 1 else ''} per end"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return platform.machine()


def busy() -> str | None:
    """Return a warning if other programs use this machine, which falsifies the results."""
    load = os.getloadavg()[0]
    if load < 0.5:
        return None
    return f"the machine is busy (load average {load:.2f}): results may be wrong; compare their spread"
