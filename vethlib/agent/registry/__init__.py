"""Interfaces by name and ifindex, subscriptions to their changes, and the programs that attach to their links."""
