"""Passes over marked interfaces: which is next, what it does, and what its result means."""
