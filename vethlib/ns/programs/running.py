"""Run a program in a network namespace, as ``ip netns exec`` does: with its own /sys and its files of /etc/netns."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from vethlib.errors import InvalidValue, NetlinkError, errno_text, not_permitted
from vethlib.ns.entering import note_entered
from vethlib.ns.reference import HasFileno, Resolver, open_owned, parse

if TYPE_CHECKING:
    import subprocess

    from .errand import Stays

__all__ = ["become", "run"]


def run(
    ref: str | HasFileno | None, command: Sequence[str], *, resolver: Resolver | None = None, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """Run a program in a network namespace and wait for it, with the options of ``subprocess.run``.

        ns.run("blue", ["ip", "-j", "link"], check=True, capture_output=True, text=True).stdout

    The program has a mount namespace of its own, in which /sys shows the links of the namespace. If the namespace has a
    name, the files in /etc/netns/NAME take the place of those in /etc, as with ``ip netns exec``; a RuntimeWarning
    reports each file that cannot. The program begins with the default action of every signal. The calling thread stays
    where it is.

    Raises the errors of ``subprocess.run``, those of :func:`~vethlib.ns.open_owned`, NotPermitted without
    CAP_SYS_ADMIN, and NotSupported if this process ignores SIGCHLD, because the exit status would be lost. If another
    part of this process has waited for the program, its exit status is unknown, and 255 is returned.
    """
    from .errand import Errand, go_to  # it imports ctypes and signal, needed only for running programs
    from .start import completed, popen, words

    if isinstance(command, (str, bytes)) and not options.get("shell"):
        raise InvalidValue("command", command, 'must be a list of words, such as ["ip", "link"]')
    command = words(command)
    name = _name(ref)
    failed: list[str] = []
    with open_owned(ref, resolver) as netns:
        note_entered(ref)

        def begin(
            options: Mapping[str, Any], stays: Stays, keep: Callable[[subprocess.Popen[Any]], object]
        ) -> subprocess.Popen[Any]:
            def begin() -> subprocess.Popen[Any]:
                with _refusals(f"run {_first(command)!r} in {ref or 'the home namespace'}"):
                    go_to(netns.fileno())
                    failed.extend(_look_around(name))
                process = popen(command, options)
                keep(process)
                return process

            return Errand(begin, undo=_kill, stays=stays).run()

        try:
            return completed(begin, dict(options))
        finally:
            for text in failed:
                warnings.warn(text, RuntimeWarning, stacklevel=2)


def become(ref: str | HasFileno | None) -> list[str]:
    """Move the calling process, which must have one thread, to where :func:`run` would run a program.

    Returns the files of /etc/netns that could not be mounted. There is no way back, so exec follows. Raises as
    :func:`run`.
    """
    from .errand import go_to

    with open_owned(ref) as netns, _refusals(f"enter {ref or 'the home namespace'}"):
        go_to(netns.fileno())
        return _look_around(_name(ref))


def _look_around(name: str) -> list[str]:
    from .view import separate, show_configuration, show_links

    separate()
    show_links()
    return show_configuration(name) if name else []


def _name(ref: str | HasFileno | None) -> str:
    """Return the name of a namespace in /run/netns; "" if the reference is of another kind."""
    text = ref if isinstance(ref, str) else str(getattr(ref, "ref", ""))
    with suppress(InvalidValue):
        reference = parse(text)
        return reference.value if reference.kind == "netns" else ""
    return ""


def _first(command: Sequence[str]) -> str:
    return os.fsdecode(command if isinstance(command, (str, bytes)) else command[0])


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """Turn the OSErrors of namespaces and mounts in a block into exceptions of vethlib."""
    try:
        yield
    except NetlinkError:
        raise
    except OSError as error:
        number = error.errno or 0
        if isinstance(error, PermissionError):
            message = f"cannot {what}: it needs CAP_SYS_ADMIN and permission to mount"
            raise not_permitted(message, "CAP_SYS_ADMIN", errno=number) from None
        raise NetlinkError(f"cannot {what}: {errno_text(number)}", errno=number) from None


def _kill(process: subprocess.Popen[Any]) -> None:
    with process:
        process.kill()
