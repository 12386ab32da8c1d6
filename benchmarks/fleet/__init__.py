"""Measure a fleet: agents on one etcd, each on its own host. ``python -m benchmarks.fleet``.

A host is simulated by a process in its own network and mount namespaces; a veth leads from it to the namespace of etcd,
so that the traffic of each agent has its own counters.
"""
