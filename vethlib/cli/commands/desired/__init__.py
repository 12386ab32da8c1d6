"""Commands on the desired state of a host: files, stores, and the agents that follow them."""
