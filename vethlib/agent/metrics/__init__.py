"""Metrics of an agent for Prometheus: a collector for any registry, and an HTTP endpoint on the agent's own loop.

    registry = prometheus_client.CollectorRegistry()
    registry.register(AgentCollector(configurator))

Needs the extra ``vethlib[metrics]``; nothing else imports prometheus_client.
"""

from .collector import AgentCollector, registry_of
from .endpoint import Endpoint, parse_address

__all__ = ["AgentCollector", "Endpoint", "parse_address", "registry_of"]
