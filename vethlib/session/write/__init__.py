"""Changing the host: creating, changing, moving and deleting links, and undoing such changes."""
