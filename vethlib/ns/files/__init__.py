"""Look at files without waiting for a file system that does not answer, and determine whose links lead to them."""
