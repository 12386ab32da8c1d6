"""The plugin module of the entry point: hooks, and the fixtures of all scopes.

The types of the fixtures are not here but in the package, because pytest inspects all attributes of a plugin, which
would import the modules of the types.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from . import options
from .fixtures import make_fixtures, netns_session
from .isolation.enter import ISOLATION, arrange, arrange_late, arrange_worker, tell_worker
from .live import LIVE, Live
from .names import SCOPES, is_used
from .netem import skip_without_netem
from .report.directory import DIRECTORY, Directory
from .report.summary import tell_kept
from .statuses import keep_exit_statuses

__all__ = ["netns_session"]

_IS_LATE = pytest.StashKey[bool]()

for _scope in SCOPES:
    globals().update(make_fixtures(_scope))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the options."""
    options.add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Read the options, and isolate the process."""
    keep_exit_statuses()
    config.addinivalue_line("markers", options.MARKER)
    settings = options.read(config)
    config.stash[options.SETTINGS] = settings
    config.stash[LIVE] = Live()
    config.stash[DIRECTORY] = Directory(settings.directory)
    config.stash[ISOLATION] = arrange(config, settings.isolate)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Prepare the input of a worker (hook of pytest-xdist)."""
    tell_worker(node, node.config.stash[ISOLATION], node.config.stash[options.SETTINGS].workers)


def pytest_report_header(config: pytest.Config) -> str:
    """Report the isolation and the settings."""
    settings, isolation = config.stash[options.SETTINGS], config.stash[ISOLATION]
    header = f"netns: {isolation}, leaks: {settings.leaks}, pcap: {settings.pcap}"
    if settings.keep:
        header += ", keep"
    return header + (f"\nnetns: {isolation.missing_ids}" if isolation.missing_ids else "")


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Isolate a worker of pytest-xdist, once every plugin has been configured."""
    stash = session.config.stash
    stash[ISOLATION] = arrange_worker(session.config, stash[ISOLATION])


def pytest_itemcollected(item: pytest.Item) -> None:
    """Check the markers. In a worker of pytest-xdist, an error would be lost, so there the test fails in its setup."""
    if not hasattr(item.config, "workerinput"):
        options.check_marker(item)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note that a test begins; and check the markers again, because some are added after the collection."""
    item.config.stash[LIVE].begin()
    if is_used(item):
        keep_exit_statuses()
    options.check_marker(item)


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Report a test as skipped if it cannot impair a wire on this kernel; and note that it has ended."""
    skip_without_netem(call, item.config.stash[options.SETTINGS].impair)
    if call.when == "teardown":
        item.config.stash[LIVE].end()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(fixturedef: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Note the fixture while it is set up."""
    beginning = request.config.stash[LIVE].beginning
    beginning.append(fixturedef.argname)
    try:
        return (yield)
    finally:
        beginning.pop()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the parts that only tests with the plugin need."""
    if not any(is_used(item) for item in session.items):
        return
    stash = session.config.stash
    before, stash[ISOLATION] = stash[ISOLATION], arrange_late(stash[ISOLATION], session.items)
    stash[_IS_LATE] = stash[ISOLATION] is not before
    from .leaks.watch import watch
    from .report.failures import attend

    attend(session.config)
    watch(session.config)


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """Report the isolation, if it differs from the header."""
    return [f"netns: {config.stash[ISOLATION]}"] if config.stash.get(_IS_LATE, False) else []


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Report kept topologies."""
    tell_kept(terminalreporter)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the directory of captures if nothing is left in it; a worker leaves that to the main process."""
    if DIRECTORY in config.stash and not hasattr(config, "workerinput"):
        config.stash[DIRECTORY].end()
