"""The example with a container works, with a Docker Engine of the tests' own."""

from __future__ import annotations

import os

import pytest

from tests.backends.engine import Engine
from tests.live.examples import run_tests

pytestmark = pytest.mark.slow


def test_the_container_on_two_networks_passes(engine: Engine) -> None:
    engine.api("POST", "/images/vethlib-test:latest/tag?repo=busybox&tag=latest")
    environment = os.environ | {"DOCKER_HOST": f"unix://{engine.socket}"}
    assert "2 passed" in run_tests("test_container.py", environment=environment)
    assert engine.api("GET", "/containers/json?all=1") == []
