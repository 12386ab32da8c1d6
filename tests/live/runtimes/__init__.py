"""Programs in which other packages have replaced parts of the standard library, and how vethlib works in them.

Each runs in a separate process, so that no replacement affects the tests. Its functions are its cases.
"""
