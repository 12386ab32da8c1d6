"""Options of the plugin: one table for the command line, the ini file, ``--help`` and what is checked."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest

__all__ = ["SETTINGS", "Settings", "add_options", "check_marker", "for_item", "read"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the plugin is to do. `directory` is where capture files go; `nodes` how many a failure's report shows."""

    isolate: str
    leaks: str
    pcap: str
    keep: bool
    directory: Path
    nodes: int


SETTINGS: Final = pytest.StashKey[Settings]()


@dataclass(frozen=True, slots=True)
class _Choice:
    """An option that has one of a few values, the first of which is the default."""

    name: str
    values: tuple[str, ...]
    help: str
    bare: str | None = None  # what the option means without a value


_CHOICES: Final = {
    choice.name: choice
    for choice in (
        _Choice(
            "isolate",
            ("auto", "always", "never"),
            "put the test process into namespaces of its own: auto, if the tests use the plugin; always; never",
        ),
        _Choice(
            "leaks", ("fail", "warn", "off"), "what happens to a test that leaves namespaces, links or threads behind"
        ),
        _Choice(
            "pcap",
            ("off", "failed", "all"),
            "capture what passes each link, for tests that failed or for all",
            "failed",
        ),
    )
}
_IN_MARKER: Final = ("leaks", "pcap")
_KEEP: Final = "keep the topologies of failed tests up after the run, and tell how to enter them"
_DIR: Final = "directory for capture files (default: .netns, in the root directory)"
_NODES: Final = "how many nodes the report of a failure shows at most (default: 16)"

MARKER: Final = (
    "netns(leaks=…, pcap=…): for this test, what --netns-leaks and --netns-pcap say; and watch it for leaks though it "
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
    """The settings of this run; the command line wins. UsageError names the option, the value and the valid ones."""
    chosen = {name: _checked(choice, *_given(config, name)) for name, choice in _CHOICES.items()}
    keep, _ = _given(config, "keep")
    directory, where = _given(config, "dir")
    path = config.rootpath / str(directory)
    if chosen["pcap"] != "off":
        _check_directory(path, where)
    return Settings(
        isolate=chosen["isolate"],
        leaks=chosen["leaks"],
        pcap=chosen["pcap"],
        keep=bool(keep),
        directory=path,
        nodes=_number(*_given(config, "nodes")),
    )


def _given(config: pytest.Config, name: str) -> tuple[Any, str]:
    """The value of an option, and where it was given."""
    value = config.getoption(f"netns_{name}")
    if value is not None:
        return value, f"--netns-{name}"
    return config.getini(
        f"netns_{name}"
    ), f"netns_{name} in {config.inipath.name if config.inipath else 'the ini file'}"


def _checked(choice: _Choice, value: object, where: str) -> str:
    if value not in choice.values:
        # What follows an option is its value, even where it needs none and is a path.
        hint = f"; before a path write {where}={choice.bare}" if choice.bare and os.path.exists(str(value)) else ""
        raise pytest.UsageError(f"{where}: {value!r} is not one of {', '.join(choice.values)}{hint}")
    return str(value)


def _check_directory(path: Path, where: str) -> None:
    there = next(one for one in (path, *path.parents) if one.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise pytest.UsageError(f"{where}: {path} is no directory for capture files: {there} cannot be written to")


def _number(value: object, where: str) -> int:
    text = str(value)
    if not text.isdecimal():
        raise pytest.UsageError(f"{where}: {text!r} is not a number of nodes, 0 or more")
    return int(text)


def for_item(item: pytest.Item) -> Settings:
    """The settings of a test: those of the run, with its markers', the nearest of which wins."""
    settings = item.config.stash[SETTINGS]
    for mark in reversed(list(item.iter_markers("netns"))):
        if not _what_is_wrong(mark):  # which is told where the test is collected, or set up
            settings = replace(settings, **mark.kwargs)
    return settings


def check_marker(item: pytest.Item) -> None:
    """Raise UsageError if a marker ``netns`` of the test has something that it cannot have."""
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
