"""Queueing disciplines on the wire, as far as vethlib sets them itself."""
