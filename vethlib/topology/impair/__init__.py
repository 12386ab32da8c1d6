"""Wires that delay, lose, duplicate, reorder and limit: by netem in the kernel, or by a relay in user space."""
