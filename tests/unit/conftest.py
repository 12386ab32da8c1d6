"""Fixtures, and the profile of Hypothesis, whose import takes half a second: other directories do without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.commands import Vethctl, runner
from tests.stores import snapshot
from tests.unit.simulated_kernel import play
from vethlib.agent.stores.files.directory import DirectoryStore

__all__ = ["play"]

# The duration of an example depends mostly on other work of the machine; where time matters, a test measures it.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An empty directory for a store."""
    path = tmp_path / "conf"
    path.mkdir()
    return path


@pytest.fixture
def store(path: Path) -> Iterator[DirectoryStore]:
    """A store of that directory, whose first snapshot has been read."""
    store = DirectoryStore(path)
    snapshot(store)
    yield store
    store.close()


@pytest.fixture
def vethctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Vethctl:
    """Run a command line in this process."""
    return runner(capsys, monkeypatch)
