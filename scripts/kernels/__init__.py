"""Runs vethlib on other kernels than the machine's: ``python -m scripts.kernels``, or ``make kernels``.

1. `packages` fetches packages of several Debian releases into .build/kernels: for `images` User-Mode Linux, for `stock`
   ordinary kernels, and QEMU to emulate a machine for them.
2. `guests` starts each, as an ordinary process. Its root is the machine's own, read-only, and `guest-init` is its first
   process, under QEMU after that of the `initramfs`.
3. `suites` is what runs in there, and how its results are read; one of them is `bench`.
4. `record` keeps the results in docs/reference/kernels.json, from which the table of supported kernels is made.
"""
