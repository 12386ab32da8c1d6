"""Benchmarks: the same work done by vethlib, by its peers and by a bare C program, taken in turn in one run.

``python -m benchmarks`` reads the command line (__main__.py), makes a plan of jobs (workloads.py: which work, how much
of it, by whom), and runs each contestant as a child process in a private network (arena.py, run.py). What the children
report becomes medians and ratios (results.py), and those a table, a chart, JSON and a comparison with our goals
(report.py, chart.py, targets.py).

A contestant is any command. It is called as ``COMMAND WORKLOAD N QUEUES`` where /run/netns has the namespaces b0, b1, …
that the work needs, does what has to be there first untimed, does the work and prints one JSON object (links that
are left at home are taken away after it)::

    {"phases": [{"name": "create", "wall": 0.1, "user": 0.01, "system": 0.09}, …],
     "figures": {"bytes_per_link": 410}, "version": "1.2", "notes": ""}

Seconds: `wall` by CLOCK_MONOTONIC, `user` and `system` by getrusage(2) of itself and its children. Figures, version and
notes may be missing. Any other exit status than 0 is a failure, with the reason on stderr.
"""
