"""The whole test run happens in namespaces of its own: root or not, it neither sees nor touches the host's network."""

from __future__ import annotations

import os
import platform
from collections.abc import Generator

import pytest

from vethlib import ns

PRIVILEGED = os.geteuid() == 0


def pytest_configure(config: pytest.Config) -> None:
    ns.isolate()


def pytest_report_header() -> str:
    who = "root" if PRIVILEGED else "an ordinary user, in a user namespace"
    return f"kernel {platform.release()}, as {who}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a missing component is a failure: there is nobody to read why a test was skipped."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which counts as a failure in CI: {report.longrepr}"
    return report
