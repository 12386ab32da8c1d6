"""Stores: the sources of an agent's configuration, and the places of its statuses: memory, a directory, or an etcd."""
