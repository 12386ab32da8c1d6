"""Programs in another network namespace: the thread that starts them, the files that they see, and waiting for them."""
