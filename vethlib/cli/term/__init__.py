"""The standard streams, the terminal, signals and exit codes of a command."""
