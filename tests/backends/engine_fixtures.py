"""Docker Engines: one for the run, and engines for single tests; and a resolver for the containers of the former."""

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
    """A directory with a short path: that of a socket has at most 108 bytes, and pytest's directories may be longer."""
    with _short_path() as path:
        yield path


@contextmanager
def _short_path() -> Iterator[Path]:
    with TemporaryDirectory(prefix="engine-", dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[Engine]:
    """One engine for all tests; use `engine`, which is the same without the containers of other tests."""
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
    """One podman service for all tests; use `podman`, which is the same without the containers of other tests."""
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
    """Create engines in the test's own namespace, without starting them."""
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
