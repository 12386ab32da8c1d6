"""Benchmarks: what vethlib costs beside what the kernel costs, taken in turn in one run."""
