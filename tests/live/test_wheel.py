"""Packages that are built from this checkout can be installed and work without it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

pytestmark = pytest.mark.release

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PLUGIN = ROOT / "packaging" / "pytest-netns"

_BUILD = "import hatchling.build as b, sys; print(getattr(b, sys.argv[1])(sys.argv[2]))"


def build(what: str, source: Path, into: Path) -> Path:
    """An sdist or a wheel by the build backend that pyproject.toml names, without a network."""
    command = [sys.executable, "-c", _BUILD, f"build_{what}", str(into)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return into / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("built")


@pytest.fixture(scope="module")
def sdist(directory: Path) -> Path:
    return build("sdist", ROOT, directory)


@pytest.fixture(scope="module")
def unpacked(sdist: Path, directory: Path) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(directory, filter="data")
    return directory / sdist.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(unpacked: Path, directory: Path) -> Path:
    """Built from the sdist: what that lacks, this lacks."""
    return build("wheel", unpacked, directory)


def environment(place: Path, *install: str) -> Path:
    """Install something in a separate environment, which sees our installed dependencies, but not the checkout."""
    venv.create(place, with_pip=False, symlinks=True)
    here = Path(sysconfig.get_paths()["purelib"])
    there = place / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for one in here.iterdir():
        if "vethlib" not in one.name and not one.name.endswith(".pth"):
            (there / one.name).symlink_to(one)
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin/python"), "install", "--quiet", "--no-index"]
    subprocess.run([*pip, "--no-compile", "--disable-pip-version-check", *install], check=True)
    return place


@pytest.fixture(scope="module")
def prefix(wheel: Path, directory: Path) -> Path:
    return environment(directory / "prefix", "--no-deps", str(wheel))


def run(prefix: Path, *command: str, cwd: Path, code: int = 0) -> str:
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    env["PATH"] = f"{prefix}/bin:{os.environ['PATH']}"
    done = subprocess.run([*command], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_has_all_that_is_used_at_run_time_and_nothing_else(wheel: Path) -> None:
    names = names_in(wheel)
    tops = {name.partition("/")[0] for name in names}
    version = PROJECT["version"]
    assert tops == {"vethlib", f"vethlib-{version}.dist-info", f"vethlib-{version}.data"}
    for name in (
        "py.typed",
        "agent/config/northbound.proto",
        "examples/pair/veth1.json",
        "cli/completion/shells/vethctl.bash",
    ):
        assert f"vethlib/{name}" in names
    data = f"vethlib-{version}.data/data"
    for name in (
        *("share/man/man1/vethctl.1", "lib/systemd/system/vethlib@.service"),
        *("share/bash-completion/completions/vethctl", "share/zsh/site-functions/_vethctl"),
        "share/fish/vendor_completions.d/vethctl.fish",
    ):
        assert f"{data}/{name}" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert wheel.name == f"vethlib-{version}-py3-none-any.whl"  # so it needs no compiler


def test_its_metadata_are_those_of_pyproject(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = f"vethlib-{PROJECT['version']}.dist-info"
        told = message_from_string(archive.read(f"{info}/METADATA").decode())
        entries = archive.read(f"{info}/entry_points.txt").decode()
    assert (told["Name"], told["Version"], told["License-Expression"]) == ("vethlib", PROJECT["version"], "Apache-2.0")
    assert set(told.get_all("Provides-Extra") or ()) == set(PROJECT["optional-dependencies"])
    assert told["Description-Content-Type"] == "text/markdown"
    assert "vethctl = vethlib.cli:main" in entries
    assert "netns = vethlib.pytest_netns.plugin" in entries


def test_the_sdist_has_what_it_takes_to_build_and_to_test(unpacked: Path) -> None:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    wanted = done.stdout.splitlines() or ["Makefile", "tests/live/test_wheel.py", "scripts/test", "docs/index.md"]
    there = {str(file.relative_to(unpacked)) for file in unpacked.rglob("*") if file.is_file()}
    assert {name for name in wanted if (ROOT / name).is_file()} <= there


def test_vethctl_works_where_it_was_installed(prefix: Path, tmp_path: Path, home: object) -> None:
    vethctl = str(prefix / "bin/vethctl")
    assert run(prefix, vethctl, "--version", cwd=tmp_path) == f"vethctl {PROJECT['version']}\n"
    where = run(prefix, "python", "-c", "import vethlib; print(vethlib.__file__)", cwd=tmp_path)
    assert where.startswith(str(prefix))
    assert "1000 of 1000" in run(prefix, vethctl, "demo", cwd=tmp_path)
    examples = Path(where.strip()).parent / "examples"
    assert "2 interfaces" in run(prefix, "python", "-m", "vethlib", "validate", str(examples / "pair"), cwd=tmp_path)
    assert "created 1 pair" in run(prefix, vethctl, "apply", str(examples / "pair"), cwd=tmp_path)
    assert "complete -F" in run(prefix, vethctl, "completion", "bash", cwd=tmp_path)


def test_so_does_the_pytest_plugin(prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "def test_two_nodes_see_each_other(veth):\n    a, b = veth\n    assert a.links()[-1].up and b.links()[-1].up\n"
    )
    assert "1 passed" in run(prefix, "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=tmp_path)


@pytest.fixture(scope="module")
def plugin(directory: Path) -> Path:
    """The wheel of pytest-netns, built from its sdist."""
    sdist = build("sdist", PLUGIN, directory)
    with tarfile.open(sdist) as archive:
        archive.extractall(directory, filter="data")
    return build("wheel", directory / sdist.name.removesuffix(".tar.gz"), directory)


def test_pytest_netns_is_metadata_with_the_version_of_vethlib(plugin: Path) -> None:
    version = PROJECT["version"]
    assert plugin.name == f"pytest_netns-{version}-py3-none-any.whl"
    assert {name.partition("/")[0] for name in names_in(plugin)} == {f"pytest_netns-{version}.dist-info"}
    assert any(name.endswith("licenses/LICENSE") for name in names_in(plugin))
    with zipfile.ZipFile(plugin) as archive:
        told = message_from_string(archive.read(f"pytest_netns-{version}.dist-info/METADATA").decode())
    assert (told["Name"], told["Version"], told["Requires-Python"]) == (
        "pytest-netns",
        version,
        PROJECT["requires-python"],
    )
    assert told.get_all("Requires-Dist") == [f"vethlib[pytest]=={version}"]
    assert "pip install pytest-netns" in told.get_payload()
    assert (PLUGIN / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_installing_pytest_netns_is_enough_to_use_the_plugin(
    plugin: Path, wheel: Path, directory: Path, tmp_path: Path
) -> None:
    place = environment(directory / "plugin", "--find-links", str(wheel.parent), "pytest-netns")
    (tmp_path / "test_it.py").write_text(
        "import vethlib\n"
        f"def test_two_nodes_ping_each_other(veth):\n    assert vethlib.__file__.startswith({str(place)!r})\n"
        "    a, b = veth\n    assert a.ping(b)\n"
    )
    assert "1 passed" in run(place, "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=tmp_path)
