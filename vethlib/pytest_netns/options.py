"""The options of the plugin, in one table for the command line, the ini file, ``--help`` and the checks."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest

__all__ = ["SETTINGS", "Settings", "add_options", "check_marker", "for_item", "read"]


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a run. `directory` is for capture files, `nodes` the maximum of nodes in a failure's report."""

    isolate: str
    workers: str
    leaks: str
    pcap: str
    impair: str
    keep: bool
    directory: Path
    nodes: int


SETTINGS: Final = pytest.StashKey[Settings]()


@dataclass(frozen=True, slots=True)
class _Choice:
    """An option with one of a few values; the first is the default."""

    name: str
    values: tuple[str, ...]
    help: str
    bare: str | None = None  # the value of the option without an argument


_CHOICES: Final = {
    choice.name: choice
    for choice in (
        _Choice(
            "isolate",
            ("auto", "always", "never"),
            "run the tests in namespaces of their own: auto, if they use the plugin; always; never",
        ),
        _Choice(
            "workers",
            ("auto", "shared", "own"),
            "network of pytest-xdist's workers: shared; own; or auto, which is own if a test uses netns_session",
        ),
        _Choice(
            "leaks",
            ("fail", "warn", "off"),
            "for a test that leaves namespaces, links or threads behind: fail it, warn, or ignore it",
        ),
        _Choice(
            "pcap",
            ("off", "failed", "all"),
            "capture what passes each link, for tests that failed or for all",
            "failed",
        ),
        _Choice(
            "impair",
            ("kernel", "userspace"),
            "what delays and loses packets of impaired wires: netem in the kernel, or a relay in user space",
        ),
    )
}
_IN_MARKER: Final = ("leaks", "pcap")
_KEEP: Final = "keep the topologies of failed tests up after the run, and print how to enter them"
_DIR: Final = "directory for capture files (default: .netns, in the root directory)"
_NODES: Final = "maximum number of nodes in the report of a failure (default: 16)"

MARKER: Final = (
    "netns(leaks=…, pcap=…): override --netns-leaks and --netns-pcap for this test; and watch it for leaks even if it "
    "uses no fixture of the plugin"
)


def add_options(parser: pytest.Parser) -> None:
    """Register every option with the command line and the ini file."""
    group = parser.getgroup("netns", "network namespaces (vethlib)")
    for choice in _CHOICES.values():
        bare: dict[str, Any] = {} if choice.bare is None else {"nargs": "?", "const": choice.bare}
        text = f"{choice.help} (default: {choice.values[0]})"
        group.addoption(f"--netns-{choice.name}", metavar="|".join(choice.values), help=text, **bare)
        parser.addini(f"netns_{choice.name}", f"{choice.help} [{'|'.join(choice.values)}]", default=choice.values[0])
    group.addoption("--netns-keep", action="store_true", default=None, help=_KEEP)
    parser.addini("netns_keep", _KEEP, type="bool", default=False)
    group.addoption("--netns-dir", metavar="DIR", help=_DIR)
    parser.addini("netns_dir", _DIR, default=".netns")
    group.addoption("--netns-nodes", metavar="NUMBER", help=_NODES)
    parser.addini("netns_nodes", _NODES, default="16")


def read(config: pytest.Config) -> Settings:
    """Return the settings of this run; the command line takes precedence over the ini file.

    Raises UsageError, which names the option, its value and the valid values.
    """
    chosen = {name: _checked(choice, *_given(config, name)) for name, choice in _CHOICES.items()}
    keep, _ = _given(config, "keep")
    directory, where = _given(config, "dir")
    path = config.rootpath / os.path.expanduser(str(directory))
    if chosen["pcap"] != "off":
        _check_directory(path, where)
    return Settings(
        isolate=chosen["isolate"],
        workers=chosen["workers"],
        leaks=chosen["leaks"],
        pcap=chosen["pcap"],
        impair=chosen["impair"],
        keep=bool(keep),
        directory=path,
        nodes=_number(*_given(config, "nodes")),
    )


def _given(config: pytest.Config, name: str) -> tuple[Any, str]:
    """Return the value of an option, and the place where it was given."""
    value = config.getoption(f"netns_{name}")
    if value is not None:
        return value, f"--netns-{name}"
    where = f"netns_{name} in {config.inipath.name if config.inipath else 'the ini file'}"
    try:
        return config.getini(f"netns_{name}"), where
    except (ValueError, pytest.UsageError) as error:  # it is a ValueError before pytest 9
        raise pytest.UsageError(f"{where}: {error}; write yes or no") from None


def _checked(choice: _Choice, value: object, where: str) -> str:
    if value not in choice.values:
        # The word after an option is its value, even if it is a path and the option needs no value.
        hint = f"; before a path write {where}={choice.bare}" if choice.bare and os.path.exists(str(value)) else ""
        raise pytest.UsageError(f"{where}: {value!r} is not one of {', '.join(choice.values)}{hint}")
    return str(value)


def _check_directory(path: Path, where: str) -> None:
    if wrong := _why_not(path):
        raise pytest.UsageError(f"{where}: {path} cannot be the directory for capture files: {wrong}")


def _why_not(path: Path) -> str:
    """Return the reason why a directory cannot be created or written, or ""."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # a name is too long, or has a NUL
        return getattr(error, "strerror", None) or str(error)
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    if not existing.is_dir():
        return f"{existing} is not a directory"
    if not os.access(existing, os.W_OK):
        return f"{existing} is not writable"
    longest = os.pathconf(existing, "PC_NAME_MAX")
    return "" if all(len(os.fsencode(part)) <= longest for part in path.parts) else os.strerror(errno.ENAMETOOLONG)


def _number(value: object, where: str) -> int:
    text = str(value)
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise pytest.UsageError(f"{where}: {text!r} must be a number of nodes, 0 or more")
    return int(text)


def for_item(item: pytest.Item) -> Settings:
    """Return the settings of a test: those of the run, overridden by its markers. The nearest marker wins."""
    settings = item.config.stash[SETTINGS]
    for mark in reversed(list(item.iter_markers("netns"))):
        if not _what_is_wrong(mark):  # an error is reported when the test is collected or set up
            settings = replace(settings, **mark.kwargs)
    return settings


def check_marker(item: pytest.Item) -> None:
    """Raise UsageError if a marker ``netns`` of the test has an invalid argument."""
    for mark in item.iter_markers("netns"):
        if wrong := _what_is_wrong(mark):
            raise pytest.UsageError(f"{item.nodeid}: marker netns{wrong}")


def _what_is_wrong(mark: pytest.Mark) -> str:
    if mark.args:
        return f" takes keywords only: {', '.join(_IN_MARKER)}"
    for name, value in mark.kwargs.items():
        if name not in _IN_MARKER:
            return f" has no {name!r}; it has {', '.join(_IN_MARKER)}"
        if value not in _CHOICES[name].values:
            return f", {name}: {value!r} is not one of {', '.join(_CHOICES[name].values)}"
    return ""
