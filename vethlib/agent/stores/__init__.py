"""Where an agent's configuration comes from: a program's own memory, or a directory of files."""
