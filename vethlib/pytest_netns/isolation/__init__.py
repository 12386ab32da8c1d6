"""Isolate a test run in its own namespaces, before anything is collected."""
