"""Commands on what a host should have: files, stores, and the agents that keep to them."""
