"""Creating pairs: the messages of a slab, their order, and the outcome for each pair."""
