"""Looking at files: without waiting for a file system that does not answer, and knowing whose links lead there."""
