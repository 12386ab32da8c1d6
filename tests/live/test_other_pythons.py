"""The built wheel and its core, on every Python of this machine that it admits: python3.12, python3.13, python3.13t …

They are found on the PATH and among those of pyenv, and PYTHONS names more, separated by ":". The core needs no
other package; the command line gets protobuf from ours.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.release

ROOT = Path(__file__).parents[2]
CORE = ROOT / "tests" / "live" / "core_program.py"
VERSION = "import sys; print(*sys.version_info[:2], hasattr(sys, '_is_gil_enabled') and not sys._is_gil_enabled())"


@cache
def pythons() -> dict[str, Path]:
    """Return the interpreters by version ("3.13", "3.13t"), that of this process first."""
    found = {_version(Path(sys.executable)): Path(sys.executable)}
    for path in _candidates():
        if (version := _version(path)) and version not in found:
            found[version] = path
    return found


def _candidates() -> Iterator[Path]:
    yield from (Path(path) for path in os.environ.get("PYTHONS", "").split(":") if path)
    for directory in os.environ.get("PATH", "").split(":"):
        yield from sorted(path for path in Path(directory).glob("python3.1[1-9]*") if "-" not in path.name)
    yield from sorted(Path("~/.pyenv/versions").expanduser().glob("3.1[1-9]*/bin/python3"), reverse=True)


def _version(path: Path) -> str:
    """Return the version of an interpreter; "" if it is none, or too old."""
    try:
        done = subprocess.run([path, "-c", VERSION], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    if done.returncode or len(words := done.stdout.split()) != 3 or int(words[1]) < 11:
        return ""
    return f"{words[0]}.{words[1]}{'t' if words[2] == 'True' else ''}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("wheel")
    build = "import hatchling.build as b, sys; print(b.build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", build, into], cwd=ROOT, capture_output=True, text=True, check=True)
    return into / done.stdout.split()[-1]


@pytest.fixture(scope="module", params=pythons())
def installed(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with nothing but the wheel and the pure Python that the command line needs."""
    place = tmp_path_factory.mktemp("python")
    python = place / "bin" / "python"
    subprocess.run([pythons()[request.param], "-m", "venv", "--without-pip", place], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-compile", "--disable-pip-version-check", wheel], check=True)
    (there,) = place.glob("lib/python*/site-packages")
    ours = Path(sysconfig.get_paths()["purelib"])
    (there / "google").mkdir()  # without google/_upb, which is compiled for our Python
    for name in ("google/protobuf", "inotify_simple", "inotify_simple.py"):
        if (ours / name).exists():
            (there / name).symlink_to(ours / name)
    return python


def run(python: Path, *arguments: str | Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"
    done = subprocess.run(
        [python, "-W", "error", *arguments], capture_output=True, text=True, check=False, env=environment, cwd="/"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_core_of_the_wheel_works_and_warns_of_nothing(installed: Path, home: object) -> None:
    assert run(installed, "-X", "dev", CORE).split() == [
        "installed",
        "created",
        "changed",
        "moved",
        "cached",
        "deleted",
    ]


def test_threads_share_a_session(installed: Path, home: object) -> None:
    """Even without a global lock, each pair exists once, and is where it belongs."""
    assert run(installed, CORE, "threads").split() == ["shared"]


def test_the_command_line_of_the_wheel_works(installed: Path, home: object) -> None:
    assert "1000 of 1000" in run(installed, "-m", "vethlib", "demo")
