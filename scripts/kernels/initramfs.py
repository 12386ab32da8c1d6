"""The initramfs of a guest under QEMU: busybox, the modules that its root needs, and `initramfs-init`.

Kernel modules are read here, too: the packages of Debian's stock kernels have no modules.dep, which depmod makes when
they are installed.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

__all__ = ["archive", "in_order", "module_name", "needs", "plain"]

_LARGEST = 64 << 20  # bytes of one module; they have up to 5 MB


def module_name(file: Path) -> str:
    """Return the name of the module in a file, as the kernel spells it."""
    return file.name.split(".")[0].replace("-", "_")


def plain(file: Path) -> bytes:
    """Return the module in a file, which may be compressed."""
    content = file.read_bytes()
    if file.suffix != ".xz":
        return content
    decompressor = lzma.LZMADecompressor()
    content = decompressor.decompress(content, max_length=_LARGEST)
    if not decompressor.eof:
        raise ValueError(f"{file} is no module: it is larger than {_LARGEST} bytes, or it is torn")
    return content


def needs(module: bytes) -> list[str]:
    """Return the names of the modules that a module needs, from its section .modinfo (include/linux/module.h)."""
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    names = found[1].decode("ascii", "replace").split(",") if found else []
    return [name.replace("-", "_") for name in names if name]


def in_order(names: Iterable[str], needed: Callable[[str], Iterable[str]]) -> list[str]:
    """Return these names and all that is `needed` by each, in an order in which they can be loaded."""
    order: dict[str, None] = {}
    begun = set()

    def add(name: str) -> None:
        if name not in begun:
            begun.add(name)
            for other in needed(name):
                add(other)
            order[name] = None

    for name in names:
        add(name)
    return list(order)


def archive(files: Mapping[str, bytes]) -> bytes:
    """Return a cpio archive, in the kernel's format newc, of executable files and the directories that they are in.

    An empty file whose name ends with a slash is a directory.
    """
    parts = []
    for number, (name, mode, content) in enumerate((*_entries(files), ("TRAILER!!!", 0, b"")), start=1):
        size = len(name.encode()) + 1
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, size, 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields)
        parts += [_padded(header + name.encode() + b"\0"), _padded(content)]
    return b"".join(parts)


def _entries(files: Mapping[str, bytes]) -> Iterator[tuple[str, int, bytes]]:
    directories: dict[str, None] = {}
    for name in files:
        parts = name.split("/")[:-1]
        directories |= {"/".join(parts[: depth + 1]): None for depth in range(len(parts))}
    for directory in directories:
        yield directory, 0o040755, b""
    for name, content in files.items():
        if not name.endswith("/"):
            yield name, 0o100755, content


def _padded(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % 4)
