"""The pytest plugin `netns`: real networks in tests, in milliseconds. This module exports the types of its fixtures.

docs/pytest-netns.md describes its use. `plugin` has the hooks, `options` and `names` the settings and the names of the
fixtures, `fixtures` and `live` the fixtures and what they have built. `isolation/` decides where the tests run,
`leaks/` watches what tests leave behind, and `report/` adds to the reports of failures and to the end of a run.

PYTEST_DONT_REWRITE: there are no assertions here, and because the package has already been imported, pytest would warn
a project that names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .fixtures import Connected, NetnsFactory, TopologyFactory, VethFactory, netns_session

if TYPE_CHECKING:
    import pytest

    from vethlib.topology import Node, Topology

    from .leaks.watch import NetnsLeakWarning

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

_NAME = "netns"  # as in the entry point, so that pytest does not load it again


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """Load the plugin, unless it is loaded: for ``-p vethlib.pytest_netns``, whether or not it is installed."""
    from . import plugin

    if not pluginmanager.is_registered(plugin):
        pluginmanager.register(plugin, _NAME)


def __getattr__(name: str) -> Any:
    # These names are for annotations, and are imported only if they are used.
    if name in ("Node", "Topology"):
        from vethlib import topology

        return getattr(topology, name)
    if name == "NetnsLeakWarning":
        from .leaks.watch import NetnsLeakWarning

        return NetnsLeakWarning
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
