"""The profile of Hypothesis, which takes half a second to import, and which tests in other directories do not need."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.commands import Vethctl, runner
from tests.unit.played_kernel import play

__all__ = ["play"]

# The duration of an example depends mostly on other work of the machine; where time matters, a test measures it.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.fixture
def vethctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Vethctl:
    """Run a command line in this process."""
    return runner(capsys, monkeypatch)
