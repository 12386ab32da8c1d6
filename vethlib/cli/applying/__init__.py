"""Reading and checking a configuration, planning, applying it and trying it."""
