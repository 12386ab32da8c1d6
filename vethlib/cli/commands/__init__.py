"""The commands, one module each or one per group; imported when the command is run."""
