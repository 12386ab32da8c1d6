"""Network namespaces: naming them, holding them open, entering them, making and removing them.

    with ns.Netns.create("blue"), ns.entered("blue"):
        ...                       # this thread, and only it, is in blue
    ns.names()                    # ["blue"]
    ns.remove("blue")

What a reference may look like: reference.py. Why the calling thread always comes back: entering.py. The names are
those of ``ip netns``, either sees what the other made.
"""

from .descriptor import Descriptor, current
from .entering import call_in, call_in_new, entered, map_in, map_in_new
from .everywhere import everywhere
from .isolation import is_privileged, isolate, isolate_names
from .named import names, remove
from .netns import Netns
from .reference import Reference, Resolver, identity, open_fd, open_owned, parse

__all__ = [
    "Descriptor",
    "Netns",
    "Reference",
    "Resolver",
    "call_in",
    "call_in_new",
    "current",
    "entered",
    "everywhere",
    "identity",
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
]
