"""Commands on the observed state of this host: links and namespaces, their counters, events and pictures."""
