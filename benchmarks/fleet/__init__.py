"""What a fleet costs: agents on one etcd, each with a host of its own. ``python -m benchmarks.fleet``.

A host is a process in network and mount namespaces of its own, as far as an agent can tell; a veth leads from it to
where etcd is, so that the traffic of each agent has a counter of its own.
"""
