"""Reading the host: looking links up, listing them, counting, and waiting."""
