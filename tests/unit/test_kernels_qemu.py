"""scripts/kernels under QEMU: modules and the initramfs, as far as they can be tested without starting a kernel."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from scripts.kernels import guests, initramfs
from scripts.kernels.guests import Qemu, UserMode
from scripts.kernels.images import Image
from scripts.kernels.initramfs import archive, in_order, needs, plain
from scripts.kernels.packages import Unavailable
from scripts.kernels.stock import Emulator, keep


def module(*others: str) -> bytes:
    """Return what is read of a module: its section .modinfo, between other bytes."""
    return b"\x7fELF\0\1license=GPL\0depends=" + ",".join(others).encode() + b"\0name=x\0\2"


def unpacked(directory: Path, files: dict[str, bytes]) -> Path:
    """An unpacked kernel with these modules."""
    modules = directory / "unpacked/usr/lib/modules/6.12.1-amd64"
    for name, content in {"vmlinuz": b"kernel", **files}.items():
        (modules / name).parent.mkdir(parents=True, exist_ok=True)
        (modules / name).write_bytes(content)
    return directory / "unpacked"


def listed(content: bytes) -> dict[str, tuple[int, bytes]]:
    """The mode and the content of each file of a cpio archive."""
    found: dict[str, tuple[int, bytes]] = {}
    while True:
        assert content[:6] == b"070701"
        fields = [int(content[start : start + 8], 16) for start in range(6, 110, 8)]
        mode, size, length = fields[1], fields[6], fields[11]
        name = content[110 : 110 + length - 1].decode()
        assert content[110 + length - 1] == 0
        begin = (110 + length + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, content[begin : begin + size])
        content = content[(begin + size + 3) // 4 * 4 :]


def test_a_module_names_those_that_it_needs() -> None:
    assert needs(module("stp", "ip6-udp-tunnel")) == ["stp", "ip6_udp_tunnel"]
    assert needs(module()) == []
    assert needs(b"no module") == []


def test_what_is_needed_comes_before_what_needs_it_even_in_a_circle() -> None:
    needed = {"bridge": ["stp"], "stp": ["llc"], "a": ["b"], "b": ["a"]}
    assert in_order(["bridge", "llc", "a"], lambda name: needed.get(name, [])) == ["llc", "stp", "bridge", "b", "a"]


def test_a_compressed_module_is_decompressed(tmp_path: Path) -> None:
    compressed = lzma.compress(module("llc"))
    (tmp_path / "stp.ko.xz").write_bytes(compressed)
    assert plain(tmp_path / "stp.ko.xz") == module("llc")
    (tmp_path / "stp.ko.xz").write_bytes(compressed[:-20])
    with pytest.raises(ValueError, match=r"stp\.ko\.xz"):
        plain(tmp_path / "stp.ko.xz")


def test_a_module_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initramfs, "_LARGEST", 1 << 20)
    (tmp_path / "stp.ko.xz").write_bytes(lzma.compress(bytes(2 << 20)))
    with pytest.raises(ValueError, match=r"stp\.ko\.xz"):
        plain(tmp_path / "stp.ko.xz")


def test_the_archive_has_the_files_below_their_directories() -> None:
    found = listed(archive({"init": b"#!", "a/b/c": b"12345", "empty/": b""}))
    assert found == {
        "a": (0o040755, b""),
        "a/b": (0o040755, b""),
        "empty": (0o040755, b""),
        "init": (0o100755, b"#!"),
        "a/b/c": (0o100755, b"12345"),
    }
    names = list(found)
    assert names.index("a") < names.index("a/b") < names.index("a/b/c")


def test_of_an_unpacked_kernel_the_modules_of_the_tests_are_kept(tmp_path: Path) -> None:
    files = {
        "kernel/net/8021q.ko.xz": lzma.compress(module("garp")),
        "kernel/net/garp.ko.xz": lzma.compress(module("llc")),
        "kernel/net/llc.ko": module(),
        "kernel/fs/9p.ko": module("9pnet"),
        "kernel/net/9pnet.ko": module(),
        "kernel/sound/snd.ko": module(),
    }
    keep(unpacked(tmp_path, files), tmp_path / "kept")
    modules = tmp_path / "kept/modules/6.12.1-amd64"
    assert (tmp_path / "kept/vmlinuz").read_bytes() == b"kernel"
    assert sorted(file.name for file in modules.glob("*.ko")) == ["8021q.ko", "9p.ko", "9pnet.ko", "garp.ko", "llc.ko"]
    assert (modules / "8021q.ko").read_bytes() == module("garp")
    image = Image("6.12.1-amd64", tmp_path / "kept/vmlinuz", modules)
    assert [file.name for file in image.files_of_modules()] == ["llc.ko", "garp.ko", "8021q.ko"]
    assert [file.name for file in image.files_of_modules(["9p"])] == ["9pnet.ko", "9p.ko"]


def test_a_kernel_without_modules_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        keep(unpacked(tmp_path, {"kernel/sound/snd.ko": module()}), tmp_path / "kept")


@pytest.fixture
def qemu(tmp_path: Path) -> Qemu:
    keep(unpacked(tmp_path, {"9p.ko": module("9pnet"), "9pnet.ko": module()}), tmp_path / "kept")
    (tmp_path / "busybox").write_bytes(b"busybox")
    image = Image("6.12.1-amd64", tmp_path / "kept/vmlinuz", tmp_path / "kept/modules/6.12.1-amd64")
    return Qemu(image, tmp_path / "busybox", Emulator(tmp_path / "qemu"))


def test_the_root_of_an_emulated_machine_is_shared_read_only(qemu: Qemu, tmp_path: Path) -> None:
    command = qemu.command(tmp_path)
    shares = [command[at + 1] for at, word in enumerate(command) if word == "-virtfs"]
    assert [share for share in shares if "readonly=on" not in share.split(",")] == [
        share for share in shares if f"path={tmp_path}" in share.split(",")
    ]
    assert len(shares) == 2


def test_the_initramfs_loads_what_is_needed_first(qemu: Qemu, tmp_path: Path) -> None:
    qemu.command(tmp_path)
    found = listed((tmp_path / "initramfs").read_bytes())
    assert [name for name in sorted(found) if name.startswith("modules/")] == [
        "modules/00-9pnet.ko",
        "modules/01-9p.ko",
    ]
    assert found["bin/busybox"] == (0o100755, b"busybox")
    assert {"init", "proc", "root"} <= set(found)


@pytest.mark.parametrize("path", ["with blank", "with,comma"])
def test_a_checkout_whose_path_a_command_line_cannot_have_is_unavailable(
    qemu: Qemu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(guests, "TREE", tmp_path / path)
    for guest in (qemu, UserMode(qemu.image, qemu.busybox, tmp_path)):
        with pytest.raises(Unavailable):
            guest.command(tmp_path)
