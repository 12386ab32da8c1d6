"""Observing the host: links, counters, traffic, pictures, and the checks of doctor."""
