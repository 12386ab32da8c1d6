"""Add the state of the network to reports of failures, capture packets, and keep topologies up.

The report of a failed test has each running topology as text, and a section for each node with its state at the time of
the failure. Captures begin when a topology is built and end when it is closed; those of a test that passed are removed
unless they are requested. A topology to keep is passed to another process as soon as a test fails, so that the report
can describe how to enter it.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import pytest

from vethlib.errors import VethError
from vethlib.pytest_netns.isolation.enter import ISOLATION, Isolation
from vethlib.pytest_netns.live import LIVE, Live
from vethlib.pytest_netns.options import SETTINGS, Settings, for_item
from vethlib.text import printable
from vethlib.topology.keep import keep
from vethlib.topology.live.capture import Capture
from vethlib.topology.live.state import describe

from .directory import make_unversioned, remove_captures
from .summary import KEPT

if TYPE_CHECKING:
    from vethlib.topology import Topology

__all__ = ["Failures", "attend"]

T = TypeVar("T")

_NAME: Final = "netns-failures"
_NOT_IN_A_NAME: Final = re.compile(r"[^\w.\-]+")
_MOST_FILES: Final = 8  # files that are named one by one
_LONGEST: Final = 120  # bytes of a directory's name


def attend(config: pytest.Config) -> None:
    """Register the hooks in a run, unless they are registered already."""
    if not config.pluginmanager.has_plugin(_NAME):
        live = config.stash[LIVE]
        failures = Failures(config.stash[SETTINGS], live, config.stash[ISOLATION])
        config.pluginmanager.register(failures, _NAME)
        live.listeners.append(failures)


class _Captured(NamedTuple):
    """A capture, and the setting of the test that has built the topology."""

    capture: Capture
    directory: Path
    pcap: str


class Failures:
    """The hooks, and the listener for topologies of fixtures."""

    def __init__(self, settings: Settings, live: Live, isolation: Isolation) -> None:
        self._settings = settings
        self._live = live
        self._isolation = isolation
        self._captures: dict[Topology, _Captured] = {}
        self._undecided: list[tuple[list[Path], Path]] = []  # captures of topologies that the present teardown closes
        self._failed: set[Topology] = set()  # topologies that were up when a test failed
        self._directories: set[Path] = set()  # directories with captures of this run
        self._running: pytest.Item | None = None
        self._interrupted: list[str] = []  # lines about the captures of a test that has no report

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        """Note the settings of the test, which apply to the topologies that it builds."""
        self._settings = for_item(item)
        self._running = item
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Add sections to the report of a failure."""
        report = yield
        if report.failed and report.when in ("setup", "call") and (used := self._live.used_by(item)):
            self._failed.update(used)
            report.sections.extend(_printable(title, text) for title, text in self._sections(item.nodeid, used))
        if report.when == "teardown":
            self._running = None
        if report.when == "teardown" and self._undecided:
            undecided, self._undecided = self._undecided, []
            if report.failed:
                files = [str(path) for paths, _ in undecided for path in paths]
                report.sections.append(_printable("netns captures", "\n".join(files)))
            else:
                self._remove(undecided)
        return report

    def pytest_keyboard_interrupt(self) -> None:
        """Keep the captures of the test that Ctrl-C or pytest.exit() has ended, which gets no report."""
        if self._running is None:
            return
        used = self._live.used_by(self._running)
        self._failed.update(used)
        captured = [topology for topology in used if topology in self._captures]
        closed, self._undecided = self._undecided, []
        _, text = _section("", partial(_lines, self._files, captured))
        self._interrupted = [*filter(None, [text]), *(str(path) for paths, _ in closed for path in paths)]

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self) -> Generator[None, object, object]:
        """Remove the captures of topologies of tests that passed, if the run ends before their fixtures do."""
        result = yield
        undecided, self._undecided = self._undecided, []
        self._remove(undecided)
        return result

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """List the captures of the test that was interrupted."""
        if self._interrupted:
            terminalreporter.section("netns captures")
            for line in self._interrupted:
                terminalreporter.line(line)

    def _remove(self, captures: Sequence[tuple[list[Path], Path]]) -> None:
        if self._live.in_child:
            return  # the parent still writes them
        for files, directory in captures:
            remove_captures(files, directory, self._settings.directory)
            self._directories.discard(directory)

    def _sections(self, nodeid: str, used: Sequence[Topology]) -> Iterator[tuple[str, str]]:
        room = self._settings.nodes
        names: Counter[str] = Counter()
        for topology in used:
            if topology.layout.wires:
                yield _section("netns topology", partial(str, topology))
            nodes = list(topology.items())
            if len(nodes) > room:  # nodes that the test has used are the most informative
                nodes.sort(key=lambda item: not item[1].was_entered)
            for name, node in nodes[:room]:
                names[name] += 1
                title = name if names[name] == 1 else f"{name}.{names[name]}"  # like the names of kept nodes
                yield _section(f"netns node {title}", partial(_lines, describe, node))
                room -= 1
        total = sum(map(len, used))
        if total > names.total():
            yield "netns nodes", f"{total - names.total()} more; --netns-nodes={total} shows them"
        if captured := [topology for topology in used if topology in self._captures]:
            yield _section("netns captures", partial(_lines, self._files, captured))
        if self._settings.keep and not self._live.in_child:
            yield from self._keep(nodeid, used)

    def _files(self, topologies: Sequence[Topology]) -> Iterator[str]:
        for topology in topologies:
            capture, directory, _ = self._captures[topology]
            missing = capture.missing
            if len(capture.files) <= _MOST_FILES:
                for path in capture.files:
                    yield f"{path}  ({missing[path]})" if path in missing else str(path)
                continue
            yield f"{len(capture.files)} files in {directory}"
            for path in list(missing)[:_MOST_FILES]:
                yield f"{path}  ({missing[path]})"
            if len(missing) > _MOST_FILES:
                yield f"… and {len(missing) - _MOST_FILES} more of these files are incomplete"

    def _keep(self, nodeid: str, used: Sequence[Topology]) -> Iterator[tuple[str, str]]:
        new = [topology for topology in used if topology not in self._live.kept]
        nodes = [node for topology in new for node in topology.values() if not node.closed]
        if not nodes:
            return
        try:
            kept = keep(nodes, as_user="user" in self._isolation.namespaces)
        except Exception as error:  # pytest ends the whole run if a report raises
            yield "netns not kept", _error_text(error)
            return
        self._live.kept.update(new)
        for node in nodes:
            node.let_run()
        listed = ", ".join(kept.nodes[:8]) + (f", … ({len(kept.nodes)} in all)" if len(kept.nodes) > 8 else "")
        yield (
            KEPT,
            f"{nodeid}: {listed}\n"
            f"a shell in one:  {kept.enter} ip netns exec {kept.nodes[0]} bash\n"
            f"all of them:     {kept.enter} {sys.executable} -m vethlib show\n"
            f"end it:          {kept.end}",
        )

    def built(self, topology: Topology, nodeid: str) -> None:
        """Begin to capture if the settings request it."""
        if self._settings.pcap != "off" and topology.layout.wires:
            directory = self._free_directory(nodeid)
            try:
                make_unversioned(self._settings.directory)
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                pytest.fail(
                    f"captures cannot be written to {directory}: {error.strerror}; see --netns-dir", pytrace=False
                )
            captured = _Captured(Capture(topology, directory), directory, self._settings.pcap)
            self._captures[topology] = captured

    def _free_directory(self, nodeid: str) -> Path:
        """Return the directory for another topology of a test, class, module or session."""
        name = _NOT_IN_A_NAME.sub("_", nodeid).strip("_") or "session"
        name = name.encode()[-_LONGEST:].decode(errors="ignore")
        if worker := os.environ.get("PYTEST_XDIST_WORKER"):
            name += f"-{worker}"  # workers do not know each other's directories
        first = self._settings.directory / name
        number, directory = 1, first
        while directory in self._directories:
            number += 1
            directory = first / str(number)
        self._directories.add(directory)
        return directory

    def closing(self, topologies: list[Topology]) -> None:
        """End the captures of topologies. Whether to keep the files is known only after the teardown."""
        for topology in topologies:
            if topology in self._captures:
                capture, directory, pcap = self._captures.pop(topology)
                capture.stop()
                is_own = topology not in self._live.inherited  # otherwise, the parent still writes them
                if is_own and pcap != "all" and topology not in self._failed:
                    self._undecided.append((capture.files, directory))
            self._failed.discard(topology)


def _section(title: str, describe: Callable[[], str]) -> tuple[str, str]:
    """Return a section, with the error if it cannot be described: pytest ends the whole run if a report raises."""
    try:
        return title, describe()
    except Exception as error:
        return title, f"cannot be described: {_error_text(error)}"


def _lines(describe: Callable[[T], Iterable[str]], subject: T) -> str:
    return "\n".join(describe(subject))


def _error_text(error: Exception) -> str:
    return str(error) if isinstance(error, (VethError, OSError)) else f"{type(error).__name__}: {error}"


def _printable(title: str, text: str) -> tuple[str, str]:
    """Return a section without what a terminal would interpret and what a worker of pytest-xdist cannot encode."""
    return printable(title), "\n".join(map(printable, text.split("\n")))
