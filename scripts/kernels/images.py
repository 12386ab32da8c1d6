"""The kernels: which there are, what each consists of, and how it gets into .build/kernels."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.kernels.packages import Apt, Unavailable

__all__ = ["EARLY_MODULES", "MODULES", "RELEASES", "Image", "Source", "busybox", "existing", "uml_image"]

HERE = Path(__file__).resolve().parent

# The suites of Debian that have them, by what they are called here.
RELEASES = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "trixie", "newest": "sid"}
_LIBC = "trixie"  # whose libc6 every linux.uml can run with

# What a guest under QEMU needs to see files of the host.
EARLY_MODULES = ("virtio_pci", "9pnet_virtio", "9p")
# What the tests use. No program in a guest loads modules, so that all of these are loaded when it starts. The kernel
# itself would load crc32c_generic for others.
MODULES = (
    "crc32c_generic",
    *("ipv6", "veth", "bridge", "br_netfilter", "dummy", "macvlan", "ipvlan", "vxlan", "8021q", "vrf", "ifb", "tun"),
    *("fuse", "overlay"),
    *("af_packet", "inet_diag", "tcp_diag", "udp_diag", "unix_diag", "netlink_diag", "packet_diag", "nf_tables"),
    *("sch_netem", "sch_tbf", "sch_htb", "sch_prio", "sch_ingress"),
    *("cls_matchall", "cls_basic", "cls_u32", "cls_flower", "act_mirred", "act_gact"),
)


Source = Callable[[str], Apt]
"""Returns the apt client for the packages of a suite."""


@dataclass(frozen=True, slots=True)
class Image:
    """A kernel that can be started.

    `release` is what `uname -r` prints, `program` the linux.uml or vmlinuz, `modules` the directory with modules.dep,
    and `libraries` a directory with the C library that linux.uml needs, if it is not the machine's.
    """

    release: str
    program: Path
    modules: Path
    libraries: Path | None = None

    @property
    def version(self) -> str:
        """The first two numbers of the release."""
        return ".".join(self.release.split(".")[:2])

    def files_of_modules(self, names: Sequence[str] = MODULES) -> list[Path]:
        """Return the files of these modules, if not of all that tests use, each after those that it depends on."""
        depends = {}
        for line in (self.modules / "modules.dep").read_text().splitlines():
            file, _, others = line.partition(":")
            # The deepest dependency is listed last.
            depends[Path(file).name.split(".")[0].replace("-", "_")] = [*reversed(others.split()), file]
        files = [file for name in names for file in depends.get(name, ())]
        return [self.modules / file for file in dict.fromkeys(files)]


def busybox(directory: Path, suite: str, apt: Source) -> Path:
    """Return a static busybox, fetched from a suite if necessary."""
    _fetch(directory / "busybox", suite, ["busybox-static"], apt)
    return existing(directory / "busybox", "bin/busybox", "usr/bin/busybox")


def uml_image(directory: Path, suite: str, apt: Source) -> Image:
    """Return User-Mode Linux of a suite, fetched if necessary."""
    home = directory / "uml" / suite
    _fetch(home, suite, ["user-mode-linux"], apt)
    program = existing(home, "usr/bin/linux.uml")
    modules = existing(home, "usr/lib/uml/modules/*")
    if _runs(program):
        return Image(modules.name, program, modules)

    libc = directory / "libc"
    _fetch(libc, _LIBC, ["libc6"], apt)
    loader = existing(libc, "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
    own = program.with_name("linux.own-libc")
    content = with_interpreter(program.read_bytes(), str(loader))
    if not own.exists() or own.read_bytes() != content:
        partial = own.with_name(f"{own.name}.partial")  # a program that runs cannot be written to
        partial.write_bytes(content)
        partial.chmod(0o755)
        partial.rename(own)
    return Image(modules.name, own, modules, libraries=loader.parent)


def _fetch(home: Path, suite: str, packages: Sequence[str], apt: Source) -> None:
    """Have the files of some packages in `home`; it exists when all of them are there."""
    if home.exists():
        return
    partial = home.with_name(f"{home.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    apt(suite).unpack(packages, partial)
    partial.rename(home)


def with_interpreter(program: bytes, interpreter: str) -> bytes:
    """Return an ELF program (64 bits, little-endian) that the kernel starts with another dynamic loader.

    The new path is appended to the file: the kernel reads it at the offset in PT_INTERP (fs/binfmt_elf.c), wherever
    that is. Running the loader with the program as its argument would not do, because User-Mode Linux executes
    /proc/self/exe again, and places its memory behind that program's.
    """
    pt_interp = 3
    changed = bytearray(program)
    (table,) = struct.unpack_from("<Q", changed, 32)
    size, count = struct.unpack_from("<HH", changed, 54)
    path = interpreter.encode() + b"\0"
    for header in range(table, table + size * count, size):
        if struct.unpack_from("<I", changed, header)[0] == pt_interp:
            struct.pack_into("<Q", changed, header + 8, len(program))  # p_offset
            struct.pack_into("<QQ", changed, header + 32, len(path), len(path))  # p_filesz, p_memsz
    return bytes(changed) + path


def existing(home: Path, *patterns: str) -> Path:
    """Return the first file that one of the patterns matches. Raises Unavailable if there is none."""
    for pattern in patterns:
        for path in sorted(home.glob(pattern)):
            return path
    raise Unavailable(f"{home} has no {patterns[0]}: remove that directory, and try again")


def _runs(program: Path) -> bool:
    return subprocess.run([program, "--version"], capture_output=True).returncode == 0
