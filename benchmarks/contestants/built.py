"""Contestants that are compiled or installed on first use, and again when their source is newer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

from .unavailable import Unavailable

__all__ = ["limit", "munet", "vishvananda", "vishvananda_given"]

_SOURCES = Path(__file__).parents[1]
_BUILT = _SOURCES.parent / ".build" / "benchmarks"
_DEBIAN = Path("/usr/share/gocode")
_NETLINK = "src/github.com/vishvananda/netlink"
_MUNET = "0.17.3"


def limit() -> list[str]:
    """Build the C program. Raises Unavailable without a compiler and the kernel's headers."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise Unavailable("no C compiler: install gcc and libc6-dev")
    return _built(_SOURCES / "limit.c", "limit", [compiler, "-O2"], dict(os.environ))


def vishvananda() -> list[str]:
    """Build the Go program with Debian's library, or that in VETHLIB_BENCH_GOPATH. Raises Unavailable."""
    given = os.environ.get("VETHLIB_BENCH_GOPATH")
    return _go_program(Path(given) if given and not _has_netlink(_DEBIAN) else _DEBIAN)


def vishvananda_given() -> list[str]:
    """Build it with another version, which is in the directory that VETHLIB_BENCH_GOPATH names. Raises Unavailable."""
    given = os.environ.get("VETHLIB_BENCH_GOPATH")
    if not given:
        message = "no other version of github.com/vishvananda/netlink is given: set VETHLIB_BENCH_GOPATH"
        raise Unavailable(message, "VETHLIB_BENCH_GOPATH")
    return _go_program(Path(given))


def _has_netlink(path: Path) -> bool:
    return (path / _NETLINK).is_dir()


def _go_program(path: Path) -> list[str]:
    go = shutil.which("go")
    if go is None:
        raise Unavailable("`go` is not installed: install golang-go and golang-github-vishvananda-netlink-dev")
    if not _has_netlink(path):
        raise Unavailable(
            f"{path} has no {_NETLINK}: install golang-github-vishvananda-netlink-dev, "
            "or set VETHLIB_BENCH_GOPATH to its directory"
        )
    environment = os.environ | {
        "GO111MODULE": "off",
        "GOPATH": str(path),
        "GOCACHE": str(_BUILT / "go-cache"),
        "GOFLAGS": "",
    }
    version = _debian_version() if path == _DEBIAN else _commit(path / _NETLINK)
    program = f"vishvananda-{zlib.crc32(os.fsencode(path)):08x}"  # one for each library
    return _built(
        _SOURCES / "vishvananda.go", program, [go, "build", "-ldflags", f"-X main.version={version}"], environment
    )


def munet() -> None:
    """Install munet to .build. Raises Unavailable if the package index does not have it."""
    directory = _BUILT / "munet"
    if (directory / "munet").is_dir():
        return
    unfinished = directory.with_suffix(f".{os.getpid()}")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(unfinished), f"munet=={_MUNET}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise Unavailable(f"munet {_MUNET} cannot be installed: {done.stderr.strip().splitlines()[-1]}", "munet")
    shutil.rmtree(directory, ignore_errors=True)
    unfinished.rename(directory)


def _debian_version() -> str:
    command = ["dpkg-query", "-W", "-f", "${Version}", "golang-github-vishvananda-netlink-dev"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout or "unknown"


def _commit(checkout: Path) -> str:
    """Return the commit and its date, of a library that is a git checkout."""
    command = ["git", "-C", str(checkout), "log", "-1", "--format=%h-of-%cs"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _built(source: Path, program: str, compiler: list[str], environment: dict[str, str]) -> list[str]:
    binary = _BUILT / program
    if not binary.exists() or binary.stat().st_mtime <= source.stat().st_mtime:
        _BUILT.mkdir(parents=True, exist_ok=True)
        unfinished = binary.with_suffix(f".{os.getpid()}")  # two runs may build at the same time
        command = [*compiler, "-o", str(unfinished), str(source)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"`{' '.join(command)}` failed:\n{done.stderr.strip()}")
        unfinished.rename(binary)
    return [str(binary)]
