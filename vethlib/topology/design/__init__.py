"""Topologies as values: from text or a shape to a complete layout. Pure."""
