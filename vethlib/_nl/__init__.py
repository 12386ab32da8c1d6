"""Raw rtnetlink: bytes and one socket. Knows nothing of namespaces, files or policy."""
