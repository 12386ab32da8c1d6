"""The profile of Hypothesis, which takes half a second to import: tests in other directories do without it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.commands import Vethctl, runner

# How long an example takes says more of what else the machine has to do; where time matters, a test measures it.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.fixture
def vethctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Vethctl:
    """Runs a command line in this process."""
    return runner(capsys, monkeypatch)
