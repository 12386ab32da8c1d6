"""Benchmarks: the same work done by vethlib, by comparable programs and by a bare C program, alternating in one run.

``python -m benchmarks`` reads the command line (__main__.py), plans jobs (workloads.py: work, size and contestants),
and runs each contestant as a child process in a private network (arena.py, run.py). The reports of the children become
medians and ratios (results.py), and these a table, a chart, JSON and a comparison with the goals (report.py, chart.py,
targets.py).

A contestant is any command. It is called as ``COMMAND WORKLOAD N QUEUES``, with the necessary namespaces b0, b1, … in
/run/netns. It makes its preparations untimed, does the work and prints one JSON object (links that are left in the home
namespace are deleted afterwards)::

    {"phases": [{"name": "create", "wall": 0.1, "user": 0.01, "system": 0.09}, …],
     "figures": {"bytes_per_link": 410}, "version": "1.2", "notes": ""}

Times are in seconds: `wall` by CLOCK_MONOTONIC, `user` and `system` by getrusage(2) of itself and its children.
Figures, version and notes may be missing. An exit status other than 0 is a failure, with the reason on stderr.
"""
