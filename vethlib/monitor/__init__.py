"""All that goes on on a host: its namespaces, their links and addresses, and what an agent says of its interfaces."""

from .event import HostEvent, LinkName, What
from .monitor import Monitor

__all__ = ["HostEvent", "LinkName", "Monitor", "What"]
