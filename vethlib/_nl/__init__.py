"""Raw rtnetlink: bytes and sockets. Knows nothing of namespaces, files or policy."""
