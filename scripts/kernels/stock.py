"""Debian's stock kernels of several releases, and QEMU, which emulates a machine for them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from scripts.kernels.images import EARLY_MODULES, MODULES, Image, Source, existing
from scripts.kernels.initramfs import in_order, module_name, needs, plain
from scripts.kernels.packages import Apt, Unavailable

__all__ = ["Emulator", "emulator", "keep", "stock_image"]

# The cloud flavour, a quarter as large, has no 9p.
_KERNEL = "linux-image-amd64"
_PARTS = re.compile(r"linux-(image|binary|modules)-\d")  # since 7.0, a kernel is several packages
_QEMU = "trixie"  # the suite whose QEMU emulates all of them


@dataclass(frozen=True, slots=True)
class Emulator:
    """QEMU with all its libraries, below one directory."""

    home: Path

    @property
    def command(self) -> list[str]:
        """The beginning of a command that runs it, with its own loader and firmware."""
        libraries = self.home / "usr/lib/x86_64-linux-gnu"
        return [
            *(str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries)),
            *(str(self.home / "usr/bin/qemu-system-x86_64"),),
            *("-L", str(self.home / "usr/share/qemu"), "-L", str(self.home / "usr/share/seabios")),
        ]


def emulator(directory: Path, apt: Source) -> Emulator:
    """Return QEMU, fetched if necessary."""
    home = directory / "qemu"
    if not home.exists():
        client, partial = apt(_QEMU), directory / "qemu.partial"
        shutil.rmtree(partial, ignore_errors=True)
        client.unpack(client.closure("qemu-system-x86"), partial)
        existing(partial, "usr/bin/qemu-system-x86_64")
        partial.rename(home)
    return Emulator(home)


def stock_image(directory: Path, suite: str, apt: Source) -> Image:
    """Return the stock kernel of a suite, fetched if necessary."""
    home = directory / "stock" / suite
    if not home.exists():
        client = apt(suite)
        unpacked, partial = home.with_name(f"{suite}.unpacked"), home.with_name(f"{suite}.partial")
        for leftover in (unpacked, partial):
            shutil.rmtree(leftover, ignore_errors=True)
        client.unpack(_packages(client), unpacked)
        keep(unpacked, partial)
        shutil.rmtree(unpacked)
        partial.rename(home)
    modules = existing(home, "modules/*")
    return Image(modules.name, home / "vmlinuz", modules)


def _packages(client: Apt) -> list[str]:
    """Return the packages that the metapackage leads to, and which have the kernel and its modules."""
    return [
        package
        for package in in_order([_KERNEL], lambda name: filter(_PARTS.match, client.depends(name)))
        if _PARTS.match(package)
    ]


def keep(unpacked: Path, home: Path) -> None:
    """Have in `home` what is needed of an unpacked kernel: itself and the modules that tests use, uncompressed."""
    directory = existing(unpacked, "usr/lib/modules/*", "lib/modules/*")
    files = {module_name(file): file for file in sorted(directory.rglob("*.ko*"))}
    contents: dict[str, bytes] = {}

    def needed(name: str) -> Iterable[str]:
        if name not in files:
            return ()  # part of the kernel itself, or unknown to this version
        contents[name] = plain(files[name])
        return needs(contents[name])

    order = [name for name in in_order((*EARLY_MODULES, *MODULES), needed) if name in contents]
    kept = home / "modules" / directory.name
    kept.mkdir(parents=True)
    shutil.copyfile(existing(unpacked, "boot/vmlinuz-*", f"usr/lib/modules/{directory.name}/vmlinuz"), home / "vmlinuz")
    dependencies = []
    for name in order:
        (kept / f"{name}.ko").write_bytes(contents[name])
        # modules.dep has all that a module needs, the deepest last.
        others = [other for other in in_order([name], needed) if other in contents and other != name]
        dependencies.append(f"{name}.ko:{''.join(f' {other}.ko' for other in reversed(others))}\n")
    (kept / "modules.dep").write_text("".join(dependencies))
    if not order:
        raise Unavailable(f"{directory} has none of the modules that tests use")
