"""Docker Engines: one for the run, and such as belong to one test; and what follows the containers of the former."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.backends.engine import Engine, missing
from tests.live.conftest import home
from vethlib import ns
from vethlib.agent import DockerResolver

__all__ = ["docker_engine", "engine", "home", "make_engine", "resolver"]

MakeEngine = Callable[[], Engine]


@pytest.fixture(scope="session")
def docker_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One engine for all tests; take `engine`, which is this one without the containers of others."""
    if why := missing():
        pytest.skip(why)
    engine = Engine(tmp_path_factory.mktemp("engine"))
    try:
        engine.up()
        yield engine
    finally:
        engine.down()


@pytest.fixture
def engine(docker_engine: Engine) -> Iterator[Engine]:
    """An engine that runs, and has no container."""
    yield docker_engine
    docker_engine.up()  # if the test has ended it
    docker_engine.remove_all()


@pytest.fixture
def make_engine(home: ns.Netns, tmp_path: Path) -> Iterator[MakeEngine]:
    """Makes engines in the test's own namespace, which are yet to be started."""
    if why := missing():
        pytest.skip(why)
    made: list[Engine] = []

    def make() -> Engine:
        made.append(Engine(tmp_path / f"e{len(made)}"))
        return made[-1]

    yield make
    for one in made:
        one.down()


@pytest.fixture
def resolver(engine: Engine) -> Iterator[DockerResolver]:
    """A resolver that asks `engine`."""
    resolver = DockerResolver(engine.socket)
    yield resolver
    resolver.close()
