"""Configuration and status in etcd, for a fleet: the agent's store, and the editor of operators."""
