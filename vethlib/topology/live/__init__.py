"""A running topology: built in bulk, used by tests, captured, and described when a test fails."""
