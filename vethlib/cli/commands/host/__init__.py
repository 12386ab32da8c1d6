"""Commands on what this host has: links and namespaces, their counters, events and pictures."""
