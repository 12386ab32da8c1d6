"""Monitor a whole host: events of its namespaces, their links and addresses, and of interface states of an agent."""

from .event import HostEvent, LinkName, What
from .monitor import Monitor

__all__ = ["HostEvent", "LinkName", "Monitor", "What"]
