"""Configuration in the files of a directory: the agent's store, and the editor of operators."""
