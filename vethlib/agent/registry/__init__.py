"""Interfaces by name and ifindex, subscriptions to their changes, and those that attach to their links."""
