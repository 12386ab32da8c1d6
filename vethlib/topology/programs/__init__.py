"""Programs in nodes: start them, prepare the files that they see, and end them with the process that started them."""
