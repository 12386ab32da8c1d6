"""What a failure shows of the network, captures, and keeping topologies up.

The report of a failed test has the topology as text and a section for each node: what was there when it failed, for
all that was up. Captures begin when a topology is built and end when it is closed; of a test that passed they are
removed, unless they are wanted. A topology that is to be kept is handed to a process of its own as soon as a test
fails, for its report to say how to enter it.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from ..errors import VethError
from ..topology.capture import Capture
from ..topology.keep import keep
from ..topology.state import describe
from .isolation import ISOLATION, Isolation
from .live import LIVE, Live
from .options import SETTINGS, Settings, for_item
from .summary import KEPT

if TYPE_CHECKING:
    from ..topology import Topology

__all__ = ["Failures", "attend"]

_NAME: Final = "netns-failures"
_NOT_IN_A_NAME: Final = re.compile(r"[^\w.\-]+")
_IGNORE: Final = ".gitignore"
_MOST_FILES: Final = 8  # that are named one by one
_LONGEST: Final = 120  # characters of a directory's name


def attend(config: pytest.Config) -> None:
    """Have this in a run, if it is not there."""
    if not config.pluginmanager.has_plugin(_NAME):
        live = config.stash[LIVE]
        failures = Failures(config.stash[SETTINGS], live, config.stash[ISOLATION])
        config.pluginmanager.register(failures, _NAME)
        live.listeners.append(failures)


class Failures:
    """The hooks, and the listener of what fixtures build."""

    def __init__(self, settings: Settings, live: Live, isolation: Isolation) -> None:
        self._settings = settings
        self._live = live
        self._isolation = isolation
        self._captures: dict[Topology, tuple[Capture, Path]] = {}
        self._undecided: list[tuple[list[Path], Path]] = []  # captures of what the test closes that is being torn down
        self._failed: set[Topology] = set()  # those that were up when a test failed
        self._nodeid = ""
        self._directories: set[Path] = set()  # those with captures of this run

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        """The settings of the test that runs, which are those of what it builds."""
        self._settings = for_item(item)
        self._nodeid = item.nodeid
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Add what there is to a failed report."""
        report = yield
        if report.failed and report.when in ("setup", "call") and (used := self._live.used_by(item)):
            self._failed.update(used)
            report.sections.extend(self._sections(used))
        if report.when == "teardown" and self._undecided:
            undecided, self._undecided = self._undecided, []
            if report.failed:
                files = [str(path) for paths, _ in undecided for path in paths]
                report.sections.append(("netns captures", "\n".join(files)))
            else:
                self._remove(undecided)
        return report

    def _remove(self, captures: Sequence[tuple[list[Path], Path]]) -> None:
        for files, directory in captures:
            _remove(files, directory, self._settings.directory)
            self._directories.discard(directory)

    def _sections(self, used: Sequence[Topology]) -> Iterator[tuple[str, str]]:
        room = self._settings.nodes
        names: Counter[str] = Counter()
        for topology in used:
            if topology.layout.wires:
                yield "netns topology", str(topology)
            nodes = list(topology.items())
            if len(nodes) > room:  # then those first that the test had to do with
                nodes.sort(key=lambda item: not item[1].was_entered)
            for name, node in nodes[:room]:
                names[name] += 1
                title = name if names[name] == 1 else f"{name}.{names[name]}"  # as where they are kept
                yield f"netns node {title}", "\n".join(describe(node))
                room -= 1
        total = sum(map(len, used))
        if total > names.total():
            yield "netns nodes", f"{total - names.total()} more, which --netns-nodes={total} shows"
        if files := [line for topology in used if topology in self._captures for line in self._files(topology)]:
            yield "netns captures", "\n".join(files)
        if self._settings.keep:
            yield from self._keep(used)

    def _files(self, topology: Topology) -> Iterator[str]:
        capture, directory = self._captures[topology]
        missing = capture.missing
        if len(capture.files) > _MOST_FILES:
            yield f"{len(capture.files)} files in {directory}"
        for path in capture.files:
            if path in missing:
                yield f"{path}  ({missing[path]})"
            elif len(capture.files) <= _MOST_FILES:
                yield str(path)

    def _keep(self, used: Sequence[Topology]) -> Iterator[tuple[str, str]]:
        new = [topology for topology in used if topology not in self._live.kept]
        nodes = [node for topology in new for node in topology.values() if not node.closed]
        if not nodes:
            return
        try:
            kept = keep(nodes, as_user="user" in self._isolation.namespaces)
        except (VethError, OSError) as error:
            yield "netns not kept", str(error)
            return
        self._live.kept.update(new)
        listed = ", ".join(kept.nodes[:8]) + (f", … ({len(kept.nodes)} in all)" if len(kept.nodes) > 8 else "")
        yield (
            KEPT,
            f"{self._nodeid}: {listed}\n"
            f"a shell in one:  {kept.enter} ip netns exec {kept.nodes[0]} bash\n"
            f"all of them:     {kept.enter} {sys.executable} -m vethlib show\n"
            f"end it:          {kept.end}",
        )

    def built(self, topology: Topology, nodeid: str) -> None:
        """Begin to capture, if that is wanted."""
        if self._settings.pcap != "off" and topology.layout.wires:
            directory = self._free_directory(nodeid)
            _make_unversioned(self._settings.directory)
            self._captures[topology] = Capture(topology, directory), directory

    def _free_directory(self, nodeid: str) -> Path:
        """The directory for one more topology of a test, class, module or session."""
        name = _NOT_IN_A_NAME.sub("_", nodeid).strip("_")[-_LONGEST:] or "session"
        if worker := os.environ.get("PYTEST_XDIST_WORKER"):
            name += f"-{worker}"  # workers know nothing of each other's directories
        first = self._settings.directory / name
        number, directory = 1, first
        while directory in self._directories:
            number += 1
            directory = first / str(number)
        self._directories.add(directory)
        return directory

    def closing(self, topologies: list[Topology]) -> None:
        """End the captures of these. Whether they are wanted is known when the teardown has ended, too."""
        for topology in topologies:
            if topology in self._captures:
                capture, directory = self._captures.pop(topology)
                capture.stop()
                if self._settings.pcap != "all" and topology not in self._failed:
                    self._undecided.append((capture.files, directory))
            self._failed.discard(topology)


def _make_unversioned(directory: Path) -> None:
    """Make the directory of all captures, which is nothing for git to show."""
    if not directory.exists():
        directory.mkdir(parents=True)
        (directory / _IGNORE).write_text("# by pytest's plugin netns\n*\n")


def _remove(files: list[Path], directory: Path, last: Path) -> None:
    """Remove files, and the directories that are empty then, up to and with `last`."""
    for path in files:
        path.unlink(missing_ok=True)
    for one in (directory, *directory.parents):
        try:
            if one == last:
                if os.listdir(one) != [_IGNORE]:
                    return  # it was there before, or has something in it
                (one / _IGNORE).unlink()
            one.rmdir()
        except OSError:
            return  # somebody else's files are in it
        if one == last:
            return
