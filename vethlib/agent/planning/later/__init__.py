"""The parts of an operation that are left for later: by an agent, which must not let one link hold up the others."""
