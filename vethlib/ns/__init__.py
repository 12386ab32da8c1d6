"""Network namespaces: create, name, open, enter and remove them.

    with ns.Netns.create("blue"), ns.entered("blue"):
        ...                       # this thread, and only it, is in blue
    ns.run("blue", ["ip", "link"])  # a program in blue, as with ip netns exec
    ns.names()                    # ["blue"]
    ns.remove("blue")

Names are those of ``ip netns``: each sees the namespaces that the other has created. For the forms of a namespace
reference, see reference.py; for why the calling thread always returns to its own namespace, see entering.py.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .descriptor import Descriptor, current
from .entering import call_at_home, call_in, call_in_new, can_enter, entered, is_here, map_in, map_in_new
from .named import names, remove
from .netns import Netns
from .opening import set_patience
from .reference import Reference, Resolver, identity, open_fd, open_owned, parse

if TYPE_CHECKING:
    from .isolation import is_privileged, isolate, isolate_names
    from .programs.running import run
    from .search import everywhere, find

__all__ = [
    "Descriptor",
    "Netns",
    "Reference",
    "Resolver",
    "call_at_home",
    "call_in",
    "call_in_new",
    "can_enter",
    "current",
    "entered",
    "everywhere",
    "find",
    "identity",
    "is_here",
    "is_privileged",
    "isolate",
    "isolate_names",
    "map_in",
    "map_in_new",
    "names",
    "open_fd",
    "open_owned",
    "parse",
    "remove",
    "run",
    "set_patience",
]

# Imported on demand, because a session does not need them.
_MODULES = {
    "everywhere": "search",
    "find": "search",
    "is_privileged": "isolation",
    "isolate": "isolation",
    "isolate_names": "isolation",
    "run": "programs.running",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
