"""Shared by reading and writing: open namespaces, attached caches, errors with context, and undoing."""
