"""Pages of the documentation that need an etcd or a container engine: their examples run as described."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.backends.engine import Engine
from tests.docs.page import PAGES, Page
from tests.docs.running import run_page

pytestmark = pytest.mark.docs


@pytest.mark.parametrize("page", [page for page in PAGES if page.needs], ids=lambda page: page.name)
def test_what_a_page_says_is_what_happens(page: Page, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    environment = {}
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if missing := [name for name in page.needs if name != "engine" and not shutil.which(name, path=path)]:
        pytest.skip(f"{' and '.join(missing)} not installed")
    if "engine" in page.needs:
        engine: Engine = request.getfixturevalue("engine")
        engine.api("POST", "/images/vethlib-test:latest/tag?repo=busybox&tag=latest")
        environment["DOCKER_HOST"] = f"unix://{engine.socket}"
    scratch = tmp_path / "page"
    scratch.mkdir()
    assert run_page(page, scratch, environment, own_processes="engine" not in page.needs)
