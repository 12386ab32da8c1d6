"""A fuzzer for all readers of foreign input: a kernel's messages, values, files, texts of a command line.

``make fuzz SECONDS=60``, or ``python -m tests.fuzz --help``. What it is made of: `engine` tries cases and judges them,
`mutation` makes them out of seeds, `netlink`, `values` and `texts` are the targets. ``corpus/TARGET/`` has inputs that
found something, or that are hard to come by; the unit tests try each of them.
"""
