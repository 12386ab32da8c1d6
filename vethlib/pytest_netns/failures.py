"""What a failure shows of the network, captures, and keeping topologies up.

The report of a failed test has the topology as text and a section for each node: what was there when it failed, for
all that was up. Captures begin when a topology is built and end when it is closed; of a test that passed they are
removed, unless they are wanted. A topology that is to be kept is handed to a process of its own as soon as a test
fails, for its report to say how to enter it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Generator, Iterator
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
        self._failed: set[Topology] = set()  # those that were up when a test failed

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        """The settings of the test that runs, which are those of what it builds."""
        self._settings = for_item(item)
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Add what there is to a failed report."""
        report = yield
        if report.failed and report.when in ("setup", "call") and self._live.up:
            self._failed.update(self._live.up)
            report.sections.extend(self._sections())
        return report

    def _sections(self) -> Iterator[tuple[str, str]]:
        left = self._settings.nodes
        for topology in self._live.up:
            if topology.closed:
                continue
            if topology.layout.wires:
                yield "netns topology", str(topology)
            for name, node in list(topology.items())[:left]:
                yield f"netns node {name}", "\n".join(describe(node))
            more = len(topology) - left
            left = max(0, -more)
            if more > 0:
                yield "netns nodes", f"{more} more, which --netns-nodes={self._settings.nodes + more} shows"
        files = [path for topology in self._live.up if topology in self._captures for path in self._files(topology)]
        if files:
            yield "netns captures", "\n".join(map(str, files))
        if self._settings.keep:
            yield from self._keep()

    def _files(self, topology: Topology) -> list[Path]:
        capture, _ = self._captures[topology]
        return capture.files

    def _keep(self) -> Iterator[tuple[str, str]]:
        new = [topology for topology in self._live.up if topology not in self._live.kept and not topology.closed]
        nodes = [node for topology in new for node in topology.values()]
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
            f"{listed}\n"
            f"a shell in one:  {kept.enter} ip netns exec {kept.nodes[0]} bash\n"
            f"all of them:     {kept.enter} {sys.executable} -m vethlib show\n"
            f"end it:          {kept.end}",
        )

    def built(self, topology: Topology, nodeid: str) -> None:
        """Begin to capture, if that is wanted."""
        if self._settings.pcap != "off" and topology.layout.wires:
            directory = self._free_directory(nodeid)
            self._captures[topology] = Capture(topology, directory), directory

    def _free_directory(self, nodeid: str) -> Path:
        """The directory for one more topology of a test, class, module or session."""
        name = _NOT_IN_A_NAME.sub("_", nodeid).strip("_")[-_LONGEST:] or "session"
        first = self._settings.directory / name
        taken = {directory for _, directory in self._captures.values()}
        number, directory = 1, first
        while directory in taken:
            number += 1
            directory = first / str(number)
        return directory

    def closing(self, topologies: list[Topology]) -> None:
        """End the captures of these, and remove those that nobody wants."""
        for topology in topologies:
            if topology in self._captures:
                capture, directory = self._captures.pop(topology)
                capture.stop()
                if self._settings.pcap != "all" and topology not in self._failed:
                    _remove(capture.files, directory, self._settings.directory)
            self._failed.discard(topology)


def _remove(files: list[Path], directory: Path, last: Path) -> None:
    """Remove files, and the directories that are empty then, up to and with `last`."""
    for path in files:
        path.unlink(missing_ok=True)
    for one in (directory, *directory.parents):
        try:
            one.rmdir()
        except OSError:
            return  # somebody else's files are in it
        if one == last:
            return
