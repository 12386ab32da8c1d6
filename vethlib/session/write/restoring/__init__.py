"""Addresses, routes and neighbours that a link loses by a change: read before it, and restored as they were."""
