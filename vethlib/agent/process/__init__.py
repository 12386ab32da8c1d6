"""The resources of the host that an agent's process holds: its name, its directories in /run, and its descriptors."""
