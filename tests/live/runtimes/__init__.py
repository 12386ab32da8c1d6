"""Programs in which somebody else has replaced parts of the standard library, and what vethlib still does in them.

Each is a process of its own, so that nothing that is replaced reaches the tests. Its functions are its cases.
"""
