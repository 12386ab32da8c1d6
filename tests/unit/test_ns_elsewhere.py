"""On other systems than Linux, everything can be imported, and a call reports what it needs."""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import os
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import vethlib._nl.const
import vethlib.ns.descriptor
import vethlib.ns.syscalls
from tests.refusing import raises
from tests.witness import open_fds
from vethlib._primitives import select
from vethlib.errors import NotSupported
from vethlib.ns.syscalls import bind


def imported_anew(module: ModuleType) -> ModuleType:
    """Return a second copy of the module, created with the present patches; everybody else keeps using the first."""
    spec = importlib.util.spec_from_file_location(f"{module.__name__}_elsewhere", str(module.__file__))
    assert spec is not None
    assert spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    return copy


def test_a_call_that_the_c_library_lacks_fails_when_called() -> None:
    call = bind("no_such_system_call", ctypes.c_int)
    with raises(NotSupported, errno=errno.ENOSYS, request="no_such_system_call"):
        call(0)


def test_without_a_c_library_the_calls_are_there_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise TypeError("as Windows does")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    monkeypatch.setattr(ctypes, "PyDLL", refuse)
    syscalls = imported_anew(vethlib.ns.syscalls)
    with raises(NotSupported, request="unshare"):
        syscalls.unshare(0)
    with raises(NotSupported, request="ioctl"):
        syscalls.ns_type(0)


# _IOC(_IOC_NONE, 0xb7, 3, 0) with the widths of arch/*/include/uapi/asm/ioctl.h
@pytest.mark.parametrize(
    ("machine", "number"),
    [
        ("x86_64", 0xB703),
        ("aarch64", 0xB703),
        ("s390x", 0xB703),
        ("parisc64", 0xB703),
        ("ppc64le", 0x2000B703),
        ("ppc", 0x2000B703),
        ("mips64", 0x2000B703),
        ("sparc64", 0x2000B703),
        ("alpha", 0x2000B703),
    ],
)
def test_the_kind_of_a_namespace_has_the_number_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, machine: str, number: int
) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    assert number == imported_anew(vethlib.ns.syscalls).NS_GET_NSTYPE


# arch/*/include/uapi/asm/socket.h
@pytest.mark.parametrize(
    ("machine", "numbers"),
    [
        ("x86_64", (33, 35, 71)),
        ("mips64", (33, 35, 71)),
        ("alpha", (0x100B, 35, 71)),
        ("sparc64", (0x100B, 0x21, 0x50)),
        ("parisc", (0x100B, 0x4013, 0x4045)),
    ],
)
def test_socket_options_have_the_numbers_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, machine: str, numbers: tuple[int, ...]
) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    const = imported_anew(vethlib._nl.const)
    assert numbers == (const.SO_RCVBUFFORCE, const.SO_TIMESTAMPNS, const.SO_NETNS_COOKIE)


def test_without_epoll_nothing_is_opened_and_nothing_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(select, "epoll")
    monkeypatch.delattr(os, "O_NOCTTY")
    descriptor = imported_anew(vethlib.ns.descriptor)
    before = open_fds()
    with raises(NotSupported, errno=errno.ENOSYS):
        descriptor.opened("/dev/null")
    assert open_fds() == before
