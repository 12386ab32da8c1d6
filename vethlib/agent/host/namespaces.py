"""Add and remove the namespaces of a plan; each only if that does not harm another user of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from vethlib import ns
from vethlib._primitives import time
from vethlib.agent.planning.confine import foreseen
from vethlib.agent.planning.observed import NetnsId, is_of_every_netns, is_same_netns
from vethlib.agent.planning.operations import AddNetns, CreatePair, RemoveNetns
from vethlib.errors import NetnsExists, NetnsNotFound, VethError
from vethlib.ns import Netns
from vethlib.ns.opening import entry_at, is_leftover
from vethlib.ns.search import mounted_elsewhere
from vethlib.session import Session

from .executed import Execution

__all__ = ["NetnsInUse", "add_netns", "remove_netns", "remove_unused"]

_CREATION: Final = 1.0  # seconds; from the creation of its file to its mount, a namespace needs one thousandth of that
_REMOVAL: Final = 0.05  # seconds; from its unmounting to the removal of its file, it needs as little


class NetnsInUse(VethError):
    """A namespace that was added for a trial is in use by now; ``netns`` is its reference."""

    def __init__(self, netns: str, inside: Sequence[str]) -> None:
        super().__init__(f"{netns} is not removed: {', '.join(inside)} {'is' if len(inside) == 1 else 'are'} in it")
        self.netns = netns


def add_netns(
    session: Session, operations: Iterable[AddNetns], added: list[Netns], execution: Execution, *, loopback: bool
) -> dict[str, VethError]:
    """Add namespaces; `added` gets those that did not exist. Return the error for each that was refused."""
    refused: dict[str, VethError] = {}
    create = partial(Netns.create, up=loopback)
    for operation in operations:
        try:
            _remove_leftover(operation)
            # Returned and noted in one C call, which no interrupt can divide, so that it can be removed again.
            added.extend(map(create, [operation.ref]))
            execution.added[operation.ref] = added[-1].identity
            added[-1].close()
            with suppress(VethError):  # its identity has to suffice then
                execution.cookies[operation.ref] = session.cookie(operation.ref)
        except NetnsExists:
            continue
        except Exception as error:
            refused[operation.name] = foreseen(error, f"create {operation.ref}")
            execution.errors.append((operation, refused[operation.name]))
        else:
            execution.done.append(operation)
    return refused


def _remove_leftover(operation: AddNetns) -> None:
    """Remove the file of a namespace whose creator was killed before it mounted the namespace on it.

    While it exists, no program can create a namespace with that name. A file that is a mount point cannot be unlinked.
    Raises NetnsNotFound if it is one in another mount namespace, where unlinking it would unmount it.
    """
    path = ns.parse(operation.ref).path
    try:
        if is_leftover(entry_at(path)):
            before = os.lstat(path)
            # A file from the future is old as well: the clock has been set back since.
            if not before.st_size and abs(time.time() - before.st_mtime) > _CREATION:
                if pid := mounted_elsewhere(path):
                    why = "start both in the same mount namespace, with nsenter --net instead of ip netns exec"
                    message = f"{path} is a namespace only in the mount namespace of process {pid}: {why}"
                    raise NetnsNotFound(message, netns=operation.ref, taken=True)
                time.sleep(_REMOVAL)  # a program that has just unmounted it removes the file (see creatable.py)
                if is_leftover(now := entry_at(path)) and now.ino == before.st_ino:
                    os.unlink(path)
    except OSError:
        pass  # creating it reports the reason


def remove_unused(session: Session, added: Iterable[Netns], execution: Execution) -> None:
    """Remove the added namespaces in which no pair was created, unless they are in use or have been replaced."""
    created = [operation for operation in execution.done if isinstance(operation, CreatePair)]
    used = {interface.namespace.ref for operation in created for interface in (operation.a, operation.b)}
    unused = [netns for netns in added if netns.ref not in used]
    processes = _processes() if unused else {}
    removed = set()
    for netns in unused:
        name, cookie = netns.ref.removeprefix("netns:"), execution.cookies.get(netns.ref, 0)
        try:
            if _remove(session, RemoveNetns(name, netns.identity, cookie), processes):
                removed.add(netns.ref)
        except VethError:
            continue  # another program uses it now, or has removed it
    if removed:
        execution.done = [each for each in execution.done if not (isinstance(each, AddNetns) and each.ref in removed)]


def remove_netns(session: Session, operations: Iterable[RemoveNetns], execution: Execution) -> None:
    """Remove namespaces that were added, unless they have another identity by now, or something is in them."""
    processes = _processes()
    for operation in operations:
        try:
            _remove(session, operation, processes)
        except VethError as error:
            execution.errors.append((operation, error))
        else:
            execution.done.append(operation)


def _remove(session: Session, operation: RemoveNetns, processes: Mapping[NetnsId, Sequence[int]]) -> bool:
    """Remove a namespace; return False if the name leads to another one, or to none. Raises NetnsInUse."""
    if not _is_same(session, operation):
        return False
    inside = [repr(link.name) for link in session.links(operation.ref) if not is_of_every_netns(link)]
    inside += [f"process {pid}" for pid in processes.get(operation.place, ())]
    if inside:
        raise NetnsInUse(operation.ref, inside)
    ns.remove(operation.ref)
    return True


def _is_same(session: Session, operation: RemoveNetns) -> bool:
    """Return whether the name still leads to the same namespace. Errors like NotPermitted are raised by later calls."""
    ref = operation.ref
    try:
        place = session.identity(ref)
        return is_same_netns(operation.place, operation.cookie, place, session.cookie(ref))
    except NetnsNotFound:
        return False
    except VethError:
        return True


def _processes() -> dict[NetnsId, list[int]]:
    """Return the processes whose main thread is in each namespace, as far as /proc shows."""
    processes: dict[NetnsId, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                netns = os.stat(f"/proc/{name}/ns/net")
            except OSError:
                continue  # it has ended
            processes.setdefault((netns.st_dev, netns.st_ino), []).append(int(name))
    return processes
