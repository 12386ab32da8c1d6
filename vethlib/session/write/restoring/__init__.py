"""Addresses, routes and neighbours that a change costs a link: read before it, and restored as they were."""
