"""Carrying out a plan: its deletions and its creations in bulk, and what became of every interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from vethlib import ns
from vethlib.errors import BatchError, NetnsExists, VethError
from vethlib.ns import Netns
from vethlib.session import Session

from .mark import ADDRESS_PROTO
from .operations import AddNetns, ChangeLink, CreatePair, DeletePair, Operation, Plan
from .state import State, Verdict

__all__ = ["Execution", "execute"]

T = TypeVar("T", bound=Operation)
Progress = Callable[[str, int, int], object]


@dataclass(slots=True)
class Execution:
    """What came of a plan: the operations that were `done`, the `errors` of those that were refused."""

    done: list[Operation] = field(default_factory=list)
    errors: list[tuple[Operation, VethError]] = field(default_factory=list)

    def verdicts(self, plan: Plan) -> dict[str, Verdict]:
        """The state of every interface after it: the plan's verdict, or FAILED with what the kernel said."""
        verdicts = dict(plan.verdicts)
        for operation, error in self.errors:
            for name in _interfaces(operation):
                if name in verdicts:
                    verdicts[name] = Verdict(State.FAILED, str(error))
        return verdicts


def _interfaces(operation: Operation) -> tuple[str, ...]:
    if isinstance(operation, CreatePair):
        return operation.a.name, operation.b.name
    if isinstance(operation, ChangeLink):
        return (operation.interface.name,)
    return (operation.interface,) if isinstance(operation, DeletePair) else ()


def execute(session: Session, plan: Plan, *, progress: Progress | None = None) -> Execution:
    """Carry out every operation of `plan` that can be; one that is refused does not stop the others.

    `progress(what, done, total)` is called now and then, `what` being "delete", "change" or "create".
    """
    execution = Execution()
    added = _add_netns(_of(plan, AddNetns), execution)
    _delete(session, _of(plan, DeletePair), execution, progress)
    _change(session, _of(plan, ChangeLink), execution, progress)
    _create(session, _of(plan, CreatePair), execution, progress)
    _remove_unused(added, execution)
    return execution


def _of(plan: Plan, kind: type[T]) -> list[T]:
    return [operation for operation in plan.operations if isinstance(operation, kind)]


def _step(progress: Progress | None, what: str) -> Callable[[int, int], object] | None:
    return None if progress is None else lambda done, total: progress(what, done, total)


def _add_netns(operations: list[AddNetns], execution: Execution) -> list[str]:
    """Add them; the names of those that were really added, and not by somebody else meanwhile."""
    added: list[str] = []
    for operation in operations:
        try:
            Netns.create(operation.name).close()
            added.append(operation.name)
        except NetnsExists:
            pass
        except VethError as error:
            execution.errors.append((operation, error))
            continue
        execution.done.append(operation)
    return added


def _remove_unused(added: list[str], execution: Execution) -> None:
    """Take back the namespaces that were added for pairs of which none could be made."""
    created = [operation for operation in execution.done if isinstance(operation, CreatePair)]
    used = {interface.namespace.name for operation in created for interface in (operation.a, operation.b)}
    for name in added:
        if name not in used:
            ns.remove(name, missing_ok=True)
            execution.done.remove(AddNetns(name))


def _delete(session: Session, operations: list[DeletePair], execution: Execution, progress: Progress | None) -> None:
    links = {_seen(operation): operation for operation in operations}
    failed: Mapping[Any, VethError] = {}
    try:
        session.delete_many(links, progress=_step(progress, "delete"))
    except BatchError as batch:
        failed = {error.item: error for error in batch.exceptions}
    _account(links, failed, execution)


def _seen(operation: DeletePair) -> tuple[str, str, int]:
    return operation.name, operation.ref, operation.index


def _change(session: Session, operations: list[ChangeLink], execution: Execution, progress: Progress | None) -> None:
    for number, operation in enumerate(operations, 1):
        new = {name: value for name, (_, value) in operation.changes.items()}
        try:
            session.set(
                operation.name,
                operation.ref,
                index=operation.index,
                new_name=new.get("name"),
                up=new.get("up"),
                mac=new.get("mac"),
                mtu=new.get("mtu"),
                alias=new.get("alias"),
                add_addresses=operation.added,
                remove_addresses=operation.removed,
                address_proto=ADDRESS_PROTO,
            )
        except VethError as error:
            execution.errors.append((operation, error))
        else:
            execution.done.append(operation)
        if progress is not None:
            progress("change", number, len(operations))


def _create(session: Session, operations: list[CreatePair], execution: Execution, progress: Progress | None) -> None:
    veths = {id(operation.veth): operation for operation in operations}
    failed: Mapping[Any, VethError] = {}
    try:
        session.create_many(
            [operation.veth for operation in operations], on_error="continue", progress=_step(progress, "create")
        )
    except BatchError as batch:
        failed = {id(error.item): error for error in batch.exceptions}
    _account(veths, failed, execution)


def _account(operations: Mapping[Any, T], failed: Mapping[Any, VethError], execution: Execution) -> None:
    for key, operation in operations.items():
        if (error := failed.get(key)) is not None:
            execution.errors.append((operation, error))
        else:
            execution.done.append(operation)
