"""Programs for the development of vethlib."""
