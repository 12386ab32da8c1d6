"""Follow namespace references: report, by events, which may lead to another namespace than before.

`follower.py` has the public class, which maps references to files, processes and labels, and back. `paths.py` follows
files, `processes.py` the end of processes, `whereabouts.py` their moves to other namespaces, and `directories.py` the
files of a directory. `resolver.py` defines resolvers of microservice labels; `docker/` has one for the Docker Engine.
"""

from .follower import Follower
from .resolver import MemoryResolver, Resolver, ResolverDown, SharesHome

__all__ = ["Follower", "MemoryResolver", "Resolver", "ResolverDown", "SharesHome"]
