"""Keeping a host in its desired state: passes, retries with backoff, and the statuses that follow."""
