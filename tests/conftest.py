"""The whole test run is in namespaces of its own (netns_isolate): it neither sees nor touches the host's network."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
from collections.abc import Generator

import pytest

pytest_plugins = ["pytester"]

PRIVILEGED = os.geteuid() == 0


def pytest_configure(config: pytest.Config) -> None:
    # A shell that starts us in the background has SIGINT ignored, and so would have all that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> list[str]:
    who = "root" if PRIVILEGED else "an ordinary user, in a user namespace"
    backends = ", ".join(f"{name} {_version(program)}" for name, program in (("etcd", "etcd"), ("engine", "dockerd")))
    return [f"kernel {platform.release()}, as {who}", backends]


def _version(program: str) -> str:
    try:
        told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return "missing"
    found = re.search(r"[vV]ersion:? v?([^\s,]+)", told)
    return found[1] if found else "of an unknown version"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a missing component is a failure: there is nobody to read why a test was skipped."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which counts as a failure in CI: {report.longrepr}"
    return report
