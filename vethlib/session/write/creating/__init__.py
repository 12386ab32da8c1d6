"""Creating pairs: the messages of a slab, their order, and what becomes of each pair."""
