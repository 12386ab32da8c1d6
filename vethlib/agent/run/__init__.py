"""The agent as a program of its own: its service, its trials, and what it answers to other processes."""
