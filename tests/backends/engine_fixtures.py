"""Docker Engines: one for the run, and such as belong to one test; and what follows the containers of the former."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.backends import podman as podman_service
from tests.backends.engine import Engine, missing
from tests.backends.podman import Podman
from tests.live.conftest import home
from vethlib import ns
from vethlib.agent import DockerResolver

__all__ = ["docker_engine", "engine", "home", "make_engine", "podman", "resolver", "running_podman", "short_path"]

MakeEngine = Callable[[], Engine]


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path is short, because a socket's has 108 bytes at most; pytest's own may be longer."""
    with _short_path() as path:
        yield path


@contextmanager
def _short_path() -> Iterator[Path]:
    with TemporaryDirectory(prefix="engine-", dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[Engine]:
    """One engine for all tests; take `engine`, which is this one without the containers of others."""
    if why := missing():
        pytest.skip(why)
    with _short_path() as path:
        engine = Engine(path / "e")
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


@pytest.fixture(scope="session")
def running_podman() -> Iterator[Podman]:
    """One podman service for all tests; take `podman`, which is this one without the containers of others."""
    if why := podman_service.missing():
        pytest.skip(why)
    with _short_path() as path:
        podman = Podman(path / "p")
        try:
            podman.up()
            yield podman
        finally:
            podman.down()


@pytest.fixture
def podman(running_podman: Podman) -> Iterator[Podman]:
    """A podman service that runs, and has no container."""
    yield running_podman
    running_podman.up()  # if the test has ended it
    running_podman.remove_all()


@pytest.fixture
def make_engine(home: ns.Netns, short_path: Path) -> Iterator[MakeEngine]:
    """Makes engines in the test's own namespace, which are yet to be started."""
    if why := missing():
        pytest.skip(why)
    made: list[Engine] = []

    def make() -> Engine:
        made.append(Engine(short_path / f"e{len(made)}"))
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
