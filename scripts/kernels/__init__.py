"""Runs vethlib on other kernels than the machine's: ``python -m scripts.kernels``, or ``make kernels``.

1. `packages` and `images` fetch Debian's kernels of several releases into .build/kernels, as User-Mode Linux.
2. `guests` starts each, as an ordinary process. Its root is the machine's own, read-only, and `guest-init` is its first
   process.
3. `suites` is what runs in there, and how its results are read.
4. `record` keeps the results in docs/reference/kernels.json, from which the table of supported kernels is made.
"""
