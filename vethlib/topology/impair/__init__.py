"""Wires that delay, drop, duplicate, reorder and limit packets: by netem in the kernel, or a relay in user space."""
