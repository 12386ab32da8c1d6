"""pytest-netns: real networks in tests, in milliseconds. The plugin, whose entry point is this package.

What it is for and how it is used: docs/pytest-netns.md. Its parts: names, options, isolation (where the tests run),
search and mentions (who uses the plugin), fixtures and live (what they have built), leaks (what a test left behind),
failures (what a failure's report shows).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from . import options
from .fixtures import Connected, NetnsFactory, TopologyFactory, VethFactory, make_fixtures, netns_session
from .isolation import ISOLATION, arrange, arrange_late, tell_worker
from .live import LIVE, Live
from .names import SCOPES, is_used
from .summary import tell_kept

if TYPE_CHECKING:
    from ..topology import Node, Topology
    from .leaks import NetnsLeakWarning

__all__ = [
    "Connected",
    "NetnsFactory",
    "NetnsLeakWarning",
    "Node",
    "Topology",
    "TopologyFactory",
    "VethFactory",
    "netns_session",
]

_IS_LATE = pytest.StashKey[bool]()

for _scope in SCOPES:
    globals().update(make_fixtures(_scope))


def __getattr__(name: str) -> Any:
    # For annotations; who imports them pays for them.
    if name in ("Node", "Topology"):
        from .. import topology

        return getattr(topology, name)
    if name == "NetnsLeakWarning":
        from .leaks import NetnsLeakWarning

        return NetnsLeakWarning
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the options."""
    options.add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Read the options, and go where the tests are to run."""
    config.addinivalue_line("markers", options.MARKER)
    settings = options.read(config)
    config.stash[options.SETTINGS] = settings
    config.stash[LIVE] = Live()
    config.stash[ISOLATION] = arrange(config, settings.isolate)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hook of pytest-xdist: a worker is about to start."""
    tell_worker(node, node.config.stash[ISOLATION])


def pytest_report_header(config: pytest.Config) -> str:
    """Where the tests run, and what is switched on."""
    settings = config.stash[options.SETTINGS]
    return f"netns: {config.stash[ISOLATION]}, leaks: {settings.leaks}, pcap: {settings.pcap}" + (
        ", keep" if settings.keep else ""
    )


def pytest_itemcollected(item: pytest.Item) -> None:
    """Check the markers. An error in a worker of pytest-xdist would be lost: there the test fails when it is set up."""
    if not hasattr(item.config, "workerinput"):
        options.check_marker(item)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Check the markers again: some come after the collection."""
    options.check_marker(item)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Bring up what only tests that use the plugin need."""
    if not any(is_used(item) for item in session.items):
        return
    stash = session.config.stash
    before, stash[ISOLATION] = stash[ISOLATION], arrange_late(stash[ISOLATION], session.items)
    stash[_IS_LATE] = stash[ISOLATION] is not before
    from .failures import attend
    from .leaks import watch

    attend(session.config)
    watch(session.config)


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """Where the tests run, if that is another place than the header has said."""
    return [f"netns: {config.stash[ISOLATION]}"] if config.stash.get(_IS_LATE, False) else []


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Tell what is kept."""
    tell_kept(terminalreporter)
