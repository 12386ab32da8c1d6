"""Carrying out a plan: its deletions and its creations in bulk, and what became of every interface.

What is there may have changed since the plan was made. So a link is touched only if it still is the one that was seen,
by name, ifindex and namespace; and a name that somebody took meanwhile fails its pair and nothing else.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from vethlib import ns
from vethlib.errors import BatchError, LinkNotFound, NetnsExists, NetnsNotFound, VethError
from vethlib.links import describe
from vethlib.ns import Netns
from vethlib.session import Session

from .mark import ADDRESS_PROTO
from .observed import Place
from .operations import AddNetns, ChangeLink, CreatePair, DeletePair, Operation, Plan, RemoveNetns
from .state import State, Verdict

__all__ = ["Execution", "NetnsInUse", "execute", "interfaces_of"]

_CREATION: Final = 1.0  # seconds; between its file and its mount a namespace needs one thousandth of that

T = TypeVar("T", bound=Operation)
Progress = Callable[[str, int, int], object]


class NetnsInUse(VethError):
    """A namespace that was added for a trial and that others use by now; ``netns`` is its reference."""

    def __init__(self, netns: str, inside: Sequence[str]) -> None:
        super().__init__(f"{netns} stays: {', '.join(inside)} {'is' if len(inside) == 1 else 'are'} in it")
        self.netns = netns


@dataclass(slots=True)
class Execution:
    """What came of a plan: the operations that were `done`, the `errors` of those that were refused."""

    done: list[Operation] = field(default_factory=list)
    errors: list[tuple[Operation, VethError]] = field(default_factory=list)

    def verdicts(self, plan: Plan) -> dict[str, Verdict]:
        """The state of every interface after it: the plan's verdict, or FAILED with what the kernel said."""
        verdicts = dict(plan.verdicts)
        for operation, error in self.errors:
            for name in interfaces_of(operation):
                if name in verdicts:
                    verdicts[name] = Verdict(State.FAILED, str(error))
        return verdicts


def interfaces_of(operation: Operation) -> tuple[str, ...]:
    """The names of the interfaces an operation is for."""
    if isinstance(operation, CreatePair):
        return operation.a.name, operation.b.name
    if isinstance(operation, ChangeLink):
        return (operation.interface.name,)
    return (operation.interface,) if isinstance(operation, DeletePair) and operation.interface else ()


def execute(
    session: Session, plan: Plan, *, progress: Progress | None = None, account: Execution | None = None
) -> Execution:
    """Carry out every operation of `plan` that can be; one that is refused does not stop the others.

    A namespace that was added for pairs of which none could be made is taken back, and so it is when an interruption
    ends the call; pairs under way are taken back then too. `progress(what, done, total)` is called now and then, `what`
    being "delete", "change" or "create". `account`, if given, is filled in and returned: it says what was done even
    where an interruption ends the call.
    """
    execution = Execution() if account is None else account
    added: list[Netns] = []
    try:
        refused = _add_netns(_of(plan, AddNetns), added, execution)
        _delete(session, _of(plan, DeletePair), execution, progress)
        _change(session, _of(plan, ChangeLink), execution, progress)
        _create(session, _possible(_of(plan, CreatePair), refused, execution), execution, progress)
        _remove_netns(session, _of(plan, RemoveNetns), execution)
    finally:
        _remove_unused(session, added, execution)
    return execution


def _of(plan: Plan, kind: type[T]) -> list[T]:
    return [operation for operation in plan.operations if isinstance(operation, kind)]


def _step(progress: Progress | None, what: str) -> Callable[[int, int], object] | None:
    return None if progress is None else lambda done, total: progress(what, done, total)


def _add_netns(operations: Iterable[AddNetns], added: list[Netns], execution: Execution) -> dict[str, VethError]:
    """Add them; `added` gets those that somebody else has not added meanwhile. Returns why others were refused."""
    refused: dict[str, VethError] = {}
    for operation in operations:
        try:
            _remove_leftover(operation)
            # Made and noted in one C call, between whose parts no interrupt comes: it will be taken back.
            added.extend(map(Netns.create, [operation.name]))
            added[-1].close()
        except NetnsExists:
            continue
        except VethError as error:
            execution.errors.append((operation, error))
            refused[operation.name] = error
        else:
            execution.done.append(operation)
    return refused


def _remove_leftover(operation: AddNetns) -> None:
    """Remove the file that is left where a creator was killed before the namespace was mounted over it.

    Neither we nor ``ip netns`` could ever create that name again. A file that is a mount point cannot be unlinked.
    """
    path = ns.parse(operation.ref).path
    try:
        found = os.lstat(path)
        if found.st_mode == stat.S_IFREG and not found.st_size and time.time() - found.st_mtime > _CREATION:
            os.unlink(path)
    except OSError:
        pass  # creating will say why


def _possible(
    operations: Sequence[CreatePair], refused: Mapping[str, VethError], execution: Execution
) -> Sequence[CreatePair]:
    """Those whose namespaces were not refused; what refused one fails its pairs."""
    if not refused:
        return operations
    possible = []
    for operation in operations:
        names = (operation.a.namespace.name, operation.b.namespace.name)
        error = next((refused[name] for name in names if name in refused), None)
        if error is None:
            possible.append(operation)
        else:
            execution.errors.append((operation, error))
    return possible


def _remove_unused(session: Session, added: Iterable[Netns], execution: Execution) -> None:
    """Take back the namespaces that were added for pairs of which none is there."""
    created = [operation for operation in execution.done if isinstance(operation, CreatePair)]
    used = {interface.namespace.ref for operation in created for interface in (operation.a, operation.b)}
    unused = [one.ref for one in added if one.ref not in used]
    if not unused:
        return
    removed = set()
    for ref in unused:
        try:
            if not any(link.kind == "veth" for link in session.links(ref)):
                ns.remove(ref)
                removed.add(ref)
        except VethError:
            continue  # somebody else has it now, or has removed it
    execution.done = [one for one in execution.done if not (isinstance(one, AddNetns) and one.ref in removed)]


def _delete(session: Session, operations: list[DeletePair], execution: Execution, progress: Progress | None) -> None:
    # Its name may lead to another namespace by now, in which the same ifindex is another's link. With the one that was
    # seen, the pair went too.
    same = {where: _is_same(session, *where) for where in dict.fromkeys((one.ref, one.place) for one in operations)}
    links = {_seen(one): one for one in operations if same[one.ref, one.place]}
    execution.done += [one for one in operations if not same[one.ref, one.place]]
    failed: Mapping[Any, VethError] = {}
    try:
        session.delete_many(links, progress=_step(progress, "delete"))
    except BatchError as batch:
        failed = {error.item: error for error in batch.exceptions}
    _account(links, failed, execution)


def _is_same(session: Session, ref: str, place: Place) -> bool:
    """Whether `ref` still leads to the namespace it led to. NotPermitted and the like are for others to meet."""
    try:
        return session.identity(ref) == place
    except NetnsNotFound:
        return False
    except VethError:
        return True


def _seen(operation: DeletePair) -> tuple[str, str, int]:
    return operation.name, operation.ref, operation.index


def _change(session: Session, operations: list[ChangeLink], execution: Execution, progress: Progress | None) -> None:
    for number, operation in enumerate(operations, 1):
        try:
            _change_one(session, operation)
        except VethError as error:
            execution.errors.append((operation, error))
        else:
            execution.done.append(operation)
        if progress is not None:
            progress("change", number, len(operations))


def _change_one(session: Session, operation: ChangeLink) -> None:
    """Change one link; the session gives back the addresses that a removed one took along."""
    if not _is_same(session, operation.ref, operation.place):
        where = describe(operation.name, operation.ref)
        raise LinkNotFound(f"set {where}: its namespace was replaced by another", netns=operation.ref)
    new = {name: value for name, (_, value) in operation.changes.items()}
    session.set(
        operation.name,
        operation.ref,
        index=operation.index,
        new_name=new.get("name"),
        up=new.get("up"),
        mac=new.get("mac"),
        mtu=new.get("mtu"),
        alias=new.get("alias"),
        add_addresses=operation.added if operation.restored is None else (),
        remove_addresses=operation.removed,
        address_proto=ADDRESS_PROTO,
    )
    if operation.restored is not None:
        name = new.get("name", operation.name)
        session.restore_addresses(name, operation.ref, addresses=operation.restored, index=operation.index)


def _create(
    session: Session, operations: Sequence[CreatePair], execution: Execution, progress: Progress | None
) -> None:
    veths = {id(operation.veth): operation for operation in operations}
    failed: Mapping[Any, VethError] = {}
    try:
        session.create_many(
            [operation.veth for operation in operations], on_error="continue", progress=_step(progress, "create")
        )
    except BatchError as batch:
        failed = {id(error.item): error for error in batch.exceptions}
    _account(veths, failed, execution)


def _remove_netns(session: Session, operations: Iterable[RemoveNetns], execution: Execution) -> None:
    for operation in operations:
        try:
            if _is_same(session, operation.ref, operation.place):
                _check_unused(session, operation)
                ns.remove(operation.name)
        except VethError as error:
            execution.errors.append((operation, error))
        else:
            execution.done.append(operation)


def _check_unused(session: Session, operation: RemoveNetns) -> None:
    inside = [repr(link.name) for link in session.links(operation.ref) if link.name != "lo"]
    inside += [f"process {pid}" for pid in _processes_in(operation.place)]
    if inside:
        raise NetnsInUse(operation.ref, inside)


def _processes_in(place: Place) -> Iterator[int]:
    """Whose main thread is in the namespace, as far as /proc says."""
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                found = os.stat(f"/proc/{name}/ns/net")
            except OSError:
                continue  # it has ended
            if (found.st_dev, found.st_ino) == place:
                yield int(name)


def _account(operations: Mapping[Any, T], failed: Mapping[Any, VethError], execution: Execution) -> None:
    for key, operation in operations.items():
        if (error := failed.get(key)) is not None:
            execution.errors.append((operation, error))
        else:
            execution.done.append(operation)
