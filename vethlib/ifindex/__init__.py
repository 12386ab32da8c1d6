"""A cache of the links of any number of namespaces: (namespace, name) ⇄ ifindex, kept up to date by events.

`cache.py` has the public class, `watching.py` keeps the cache up to date. `observatory.py` receives the events,
`reader.py` applies them, and `changes.py` has the changes that were not fetched yet. `watch.py` has a watched namespace
and `table.py` its links, `news.py` the descriptor to wait for, and `event.py` the events for users.
"""

from .cache import IfIndexCache
from .event import EventKind, LinkEvent

__all__ = ["EventKind", "IfIndexCache", "LinkEvent"]
