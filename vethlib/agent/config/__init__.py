"""The configuration: the northbound model as JSON, read into checked interfaces, and the owner marks of built links."""
