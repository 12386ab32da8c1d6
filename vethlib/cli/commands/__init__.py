"""The commands, one module each or one per group; imported when the command is run.

Those for no particular part are here, the others in `host/` and `desired/`.
"""
