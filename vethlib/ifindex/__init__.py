"""What links there are in any number of namespaces, known without asking: (namespace, name) ⇄ ifindex, kept by events.

`cache.py` is the public face; `watching.py` keeps what is known up to date; `observatory.py` is where it listens from;
`table.py` has the links of one namespace; `news.py` is what a user waits for, `event.py` what they are told.
"""

from .cache import IfIndexCache
from .event import EventKind, LinkEvent

__all__ = ["EventKind", "IfIndexCache", "LinkEvent"]
