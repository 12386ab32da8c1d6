"""Isolate a test run in namespaces of its own, before anything is collected."""
