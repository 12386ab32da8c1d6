"""Programs in nodes: starting them, the files that they see, and ending them with the process that started them."""
