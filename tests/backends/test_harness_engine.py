"""The engines of the tests use only what is theirs, and release all of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.backends.engine import ROOT, Engine, missing
from tests.witness import poll

MakeEngine = Callable[[], Engine]


def script(verb: str, directory: Path | str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts" / "engine", verb],
        env=os.environ | {"ENGINE_DIR": str(directory), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )


def group(pid: int) -> str:
    """The cgroup in which that of a container is."""
    found = [line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    return os.path.dirname(max(found, key=len))


@pytest.fixture
def shim(tmp_path: Path) -> Iterator[Callable[[Path], subprocess.Popen[bytes]]]:
    """Starts what looks as the shim of a container does, of the engine in a directory."""
    program = tmp_path / "containerd-shim"
    program.symlink_to("/bin/bash")
    started: list[subprocess.Popen[bytes]] = []

    def start(directory: Path) -> subprocess.Popen[bytes]:
        command = [str(program), "-c", "echo; read -r", "shim", "-address", f"{directory}/containerd/sock"]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert started[-1].stdout is not None
        started[-1].stdout.readline()  # it has its name
        return started[-1]

    yield start
    for one in started:
        one.communicate()


def test_down_removes_nothing_but_what_up_has_made(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letters").write_text("dear all")
    done = script("down", tmp_path / "mine")
    assert done.returncode == 1
    assert f"{tmp_path}/mine was not created by 'up'" in done.stderr
    assert (tmp_path / "mine" / "letters").read_text() == "dear all"
    assert script("down", tmp_path / "none").returncode == 0


def test_up_takes_no_directory_that_has_something_in_it(tmp_path: Path) -> None:
    if why := missing():
        pytest.skip(why)
    (tmp_path / "letters").write_text("dear all")
    done = script("up", tmp_path)
    assert done.returncode == 1
    assert f"{tmp_path} is not empty" in done.stderr
    assert os.listdir(tmp_path) == ["letters"]


@pytest.mark.parametrize("spelling", ["{}/a/../b", "{}/..", "{}/b/..", "a/b", "/", "//", "/.", "{}/a b"])
def test_a_directory_has_to_be_spelled_so_that_it_can_be_no_other(tmp_path: Path, spelling: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    done = script("status", spelling.format(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")


def test_down_ends_no_shim_of_an_engine_whose_socket_ends_alike(
    shim: Callable[[Path], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    one = shim(Path(f"/elsewhere{tmp_path}/e"))
    done = script("down", tmp_path / "e")
    assert (done.returncode, done.stderr) == (0, "")
    assert one.poll() is None


def test_an_engine_that_was_killed_goes_down_with_its_containers_and_none_of_another_one_s(
    short_path: Path, home: object
) -> None:
    if why := missing():
        pytest.skip(why)
    places = short_path / "a" / "b", short_path / "a_b"
    going, staying = map(Engine, places)
    try:
        going.up()
        staying.up()
        ended, lives = going.run("one").pid, staying.run("one").pid
        assert group(ended) != group(lives)
        going.kill9()
        assert script("down", places[0]).returncode == 0
        assert poll(lambda: not Path(f"/proc/{ended}").exists())
        assert not places[0].exists()
        assert Path(f"/proc/{lives}").exists()
        assert staying.api("GET", "/containers/json")[0]["State"] == "running"
    finally:
        going.down()
        staying.down()


def test_a_path_that_is_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / ("x" * 100)
    done = script("up", directory)
    assert done.returncode == 1
    assert f"{directory} is too long" in done.stderr
    assert not directory.exists()
