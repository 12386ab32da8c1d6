"""Which namespace references may lead elsewhere than before, told by events.

`follower.py` is the public face: from references to files, processes and labels, and back. `paths.py` follows files,
`processes.py` the end of processes; `resolver.py` says what a microservice label stands for, `docker.py` how a Docker
Engine does: `engine.py` is the way to it, `containers.py` what is made of its answers.
"""

from .follower import Follower
from .resolver import MemoryResolver, Resolver, ResolverDown

__all__ = ["Follower", "MemoryResolver", "Resolver", "ResolverDown"]
