"""Execute a plan, with its deletions and its creations in bulk, and report the result for every interface.

The host may have changed since the plan was made. So a link is changed or deleted only if it is still the observed one,
by name, ifindex and namespace; and if another link has taken a name, only the pair that needs the name fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeVar, cast

from vethlib.agent.config.mark import ADDRESS_PROTO
from vethlib.agent.planning.confine import foreseen
from vethlib.agent.planning.observed import is_same_link
from vethlib.agent.planning.operations import (
    AddNetns,
    ChangeLink,
    CreatePair,
    DeletePair,
    Operation,
    Plan,
    RemoveNetns,
    RemoveSurplus,
)
from vethlib.agent.progress import ProgressCallback
from vethlib.endfields.table import FIELDS
from vethlib.errors import BatchError, LinkExists, VethError
from vethlib.links import Address, IPInterface, Link, NetnsRef, describe
from vethlib.ns import Netns
from vethlib.session import Session
from vethlib.session.core.namespaces import Birth
from vethlib.session.session import open_namespaces, open_netns
from vethlib.session.write.creating.create import Made, Planned
from vethlib.session.write.delete import DeleteItem
from vethlib.session.write.restoring.keeping import keeping_dependents

from .executed import Execution
from .given import ChangesMade, facts_of_creation, recorded_changes
from .inturn import RoutesInTurn
from .namespaces import add_netns, remove_netns, remove_unused
from .recordfile import RecordFile
from .recording import intended, made

__all__ = ["execute"]


T = TypeVar("T", bound=Operation)
K = TypeVar("K")


def execute(
    session: Session,
    plan: Plan,
    *,
    progress: ProgressCallback | None = None,
    account: Execution | None = None,
    records: RecordFile | None = None,
    loopback: bool = True,
    waits: bool = True,
    surplus: int | None = None,
) -> Execution:
    """Execute every operation of `plan` that the kernel accepts; a refused one does not stop the others.

    If none of the pairs for which a namespace was added could be created, the namespace is removed again, unless
    another program uses it by then. If an interruption ends the call, the pairs that are being created are removed,
    too. `progress(what, done, total)` is called from time to time, with "delete", "change" or "create". `account`, if
    given, is filled in and returned, so that it lists what was done, and what was begun, even if an error or an
    interruption ends the call.

    The loopback of an added namespace is set up, unless `loopback` is False. A route whose source is an address of
    another link that is still checked for duplicates is added when that is done; unless it `waits`, it is refused.
    `surplus` is that of :meth:`Session.set`: an agent must not read everything a tenant has added.

    With `records`, pairs are recorded: the intent before they are created, and the result batch by batch, so that a
    process that is killed leaves no unknown pair. Deletions are not recorded: a pair that is not where it was may have
    been moved at that moment, which the next observation finds out.

    Raises VethError if a bulk operation fails as a whole, for example because the session is closed.
    """
    execution = Execution() if account is None else account
    _Executor(session, plan, execution, progress, records, surplus).run(loopback=loopback, waits=waits)
    return execution


class _Executor:
    """Executes one plan: see :func:`execute` for its arguments."""

    def __init__(
        self,
        session: Session,
        plan: Plan,
        execution: Execution,
        progress: ProgressCallback | None,
        records: RecordFile | None,
        surplus: int | None,
    ) -> None:
        self._session = session
        self._execution = execution
        self._progress = progress
        self._records = records
        self._surplus = surplus
        self._routes = RoutesInTurn(session, plan.operations, execution, surplus)
        self._of_kind: dict[type[Operation], list[Any]] = {}
        for operation in plan.operations:
            self._of_kind.setdefault(type(operation), []).append(operation)

    def run(self, *, loopback: bool, waits: bool) -> None:
        """Execute the plan."""
        session, execution, of_kind = self._session, self._execution, self._of_kind
        added: list[Netns] = []
        try:
            refused: Mapping[str, VethError] = {}
            if additions := of_kind.get(AddNetns):
                refused = add_netns(session, additions, added, execution, loopback=loopback)
            self._routes.take_first()
            if deletions := of_kind.get(DeletePair):
                with execution.beginning(deletions):
                    self._delete(deletions)
            if removals := of_kind.get(RemoveSurplus):
                self._remove_surplus(removals)
            if changes := of_kind.get(ChangeLink):
                self._change(changes)
            if creations := _possible(of_kind.get(CreatePair, ()), refused, execution):
                with execution.beginning(creations):
                    self._create(creations)
            self._routes.change_last(waits=waits)
            if unused := of_kind.get(RemoveNetns):
                remove_netns(session, unused, execution)
        finally:
            if added:
                remove_unused(session, added, execution)

    def _step(self, what: str) -> Callable[[int, int], object] | None:
        progress = self._progress
        return None if progress is None else lambda done, total: progress(what, done, total)

    def _delete(self, operations: list[DeletePair]) -> None:
        # Another link may have the place of the observed one by now. If so, the observed link was deleted with its
        # pair.
        links = {_end_to_delete(each): each for each in operations}

        def is_observed(item: DeleteItem, link: Link, birth: Birth) -> bool:
            return _is_observed(links[cast(tuple[str, str, int], item)], link, birth)

        delete = partial(self._session.delete_many, renamed_ok=True, only_if=is_observed)
        failed: Mapping[Any, VethError] = {}
        try:
            delete(links, progress=self._step("delete"))
        except BatchError as batch:
            failed = {error.item: error for error in batch.exceptions}
        except VethError:
            raise
        except Exception as error:
            failed = _one_by_one(links, "delete a pair", error, lambda link: delete([link]))
        _account(links, failed, self._execution, self._execution.done.append)

    def _remove_surplus(self, operations: Iterable[RemoveSurplus]) -> None:
        for operation in operations:
            is_observed = partial(_is_observed, operation)
            try:
                self._session.remove_dependents(
                    operation.name, operation.ref, index=operation.index, only_if=is_observed, **operation.surplus
                )
            except Exception as error:
                what = f"change {describe(operation.name, operation.ref)}"
                self._execution.errors.append((operation, foreseen(error, what)))
            else:
                self._execution.done.append(operation)

    # --- changing

    def _change(self, operations: list[ChangeLink]) -> None:
        parts = [self._routes.part(operation) for operation in operations]
        with recorded_changes(self._records, parts) as noted:
            for number, (operation, part) in enumerate(zip(operations, parts, strict=True), 1):
                try:
                    self._change_one(part, noted)
                except BaseException as error:
                    if noted.may_be_made(part):
                        self._execution.begin([operation])
                    if not isinstance(error, Exception):
                        raise
                    what = f"change {describe(operation.name, operation.ref)}"
                    self._execution.errors.append((operation, foreseen(error, what)))
                else:
                    self._routes.made(operation)
                if self._progress is not None:
                    self._progress("change", number, len(operations))

    def _change_one(self, operation: ChangeLink, noted: ChangesMade) -> None:
        """Change one link; the session restores the addresses that the kernel removes along with a removed one."""
        # All calls after the first are about the same namespace, wherever its reference leads by then.
        with _held(self._session, operation.ref) as netns, ExitStack() as kept:
            if operation.restored is not None:  # its addresses are removed and added in several steps
                namespaces = kept.enter_context(open_namespaces(self._session))
                kept.enter_context(keeping_dependents(namespaces, operation.name, netns, operation.index))
            self._change_in(netns, operation, noted)

    def _change_in(self, netns: NetnsRef, operation: ChangeLink, noted: ChangesMade) -> None:
        session, surplus = self._session, self._surplus
        new = {name: value for name, (_, value) in operation.changes.items()}
        name = new.pop("name", None)
        late = {field: new.pop(field) for field in [*new] if operation.restored is not None and _is_late(field)}
        with noted.making(operation):
            session.set(
                operation.name,
                netns,
                index=operation.index,
                new_name=name,
                add_addresses=_added(operation),
                remove_addresses=operation.removed,
                address_order=_order(operation),
                address_proto=ADDRESS_PROTO,
                only_if=partial(_is_observed, operation),
                surplus=surplus,
                **new,
            )
        name = name or operation.name
        if renewed := (*operation.renewed, *operation.again):
            session.renew_addresses(name, netns, addresses=renewed, index=operation.index, address_proto=ADDRESS_PROTO)
        if operation.restored is not None:
            session.restore_addresses(name, netns, addresses=operation.restored, index=operation.index)
        if late:
            session.set(name, netns, index=operation.index, surplus=surplus, **late)

    # --- creating

    def _create(self, operations: Sequence[CreatePair]) -> None:
        given = [(self._routes.part(operation).veth, operation) for operation in operations]
        veths = {id(veth): operation for veth, operation in given}
        failed: Mapping[Any, VethError] = {}
        create = partial(self._session.create_many, on_error="continue", read=False)  # because an observation follows
        records = self._records
        if records is not None:
            intend = partial(_note_intents, veths, records)
            create = partial(create, before=intend, made=partial(_note_creations, veths, records, self._execution))
        try:
            create([veth for veth, _ in given], progress=self._step("create"))
        except BatchError as batch:
            failed = {id(error.item): error for error in batch.exceptions}
        except VethError:
            raise
        except Exception as error:
            pairs = {id(veth): veth for veth, _ in given}
            failed = _one_by_one(veths, "create a pair", error, lambda key: create([pairs[key]]))
        # The next observation voids the other intents that were not carried out: a pair that failed may exist in part.
        if records is not None:
            _void_refused(veths, records, failed)
        _account(veths, failed, self._execution, self._routes.made)


def _possible(
    operations: Sequence[CreatePair], refused: Mapping[str, VethError], execution: Execution
) -> Sequence[CreatePair]:
    """Return the pairs whose namespaces were not refused; the others fail with the error of their namespace."""
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


def _one_by_one(items: Iterable[K], what: str, error: Exception, do: Callable[[K], object]) -> dict[K, VethError]:
    """Repeat what raised an unforeseen `error`, item by item, to confine it to one item. Return the errors."""
    foreseen(error, what)
    failed = {}
    for item in items:
        try:
            do(item)
        except BatchError as batch:
            failed[item] = batch.exceptions[0]
        except Exception as error:
            failed[item] = foreseen(error, what)
    return failed


def _is_observed(operation: DeletePair | ChangeLink | RemoveSurplus, link: Link, birth: Birth) -> bool:
    """Return whether a link is the one for which the operation was planned."""
    place, cookie = birth
    if operation.seen is None:
        return place == operation.place
    return is_same_link(operation.seen, operation.mark, link, place, cookie)


def _end_to_delete(operation: DeletePair) -> tuple[str, str, int]:
    if operation.at_home is not None:
        name, index = operation.at_home
        return name, "", index
    return operation.name, operation.ref, operation.index


@contextmanager
def _held(session: Session, ref: str) -> Iterator[NetnsRef]:
    if not ref:
        yield ref
        return
    with Netns(open_netns(session, ref), ref) as netns:
        yield netns


def _is_late(field: str) -> bool:
    """Return whether a field needs the addresses of its link."""
    return field in FIELDS and FIELDS[field].late


def _added(operation: ChangeLink) -> list[IPInterface]:
    if operation.restored is not None:
        return []
    added = [address for address in operation.added if not isinstance(address, Address)]
    return list(dict.fromkeys([*added, *_relabelled(operation)]))


def _relabelled(operation: ChangeLink) -> list[IPInterface]:
    """Return the addresses whose labels the kernel changes along with the name, even if they are as configured now."""
    if "name" not in operation.changes or operation.interface.link_only:
        return []
    return [address for address in operation.interface.addresses if getattr(address, "label", "")]


def _order(operation: ChangeLink) -> Sequence[IPInterface]:
    """Return the order to request, even if the plan has none.

    The session adds addresses before it removes others, and the kernel puts a new address after those that exist in its
    subnet.
    """
    if operation.order or operation.restored is not None:
        return operation.order
    if (operation.added and operation.removed) or _relabelled(operation):
        return tuple(dict.fromkeys(operation.interface.addresses))
    return ()


def _note_intents(veths: Mapping[int, CreatePair], records: RecordFile, pairs: Iterable[Planned]) -> None:
    """Record pairs that are about to be created. Pairs with both ends in the home namespace need no record."""
    intents = [intended(veths[id(pair.veth)], pair) for pair in pairs]
    records.write([records.record.intend(pair) for pair in intents if not pair.is_within(records.home)])


def _void_refused(veths: Mapping[int, CreatePair], records: RecordFile, failed: Mapping[Any, VethError]) -> None:
    """Void the intents for pairs whose name another link had before, so that nothing of them exists.

    That link may be an end of another agent's pair with the same marks: with the intent, it would pass for an owned end
    whose peer was moved. An alternative name is refused only after the pair has been created.
    """
    refused = [
        veths[key]
        for key, error in failed.items()
        if isinstance(error, LinkExists) and key in veths and not (veths[key].a.altnames or veths[key].b.altnames)
    ]
    records.write([records.record.void(frozenset((create.a.name, create.b.name))) for create in refused])


def _note_creations(
    veths: Mapping[int, CreatePair], records: RecordFile, execution: Execution, pairs: Iterable[Made]
) -> None:
    facts = []
    for pair in pairs:
        create = veths[id(pair.veth)]
        execution.made.append((create, pair))
        created = made(create, pair)
        if not created.is_within(records.home):
            facts.append(records.record.add(created))
        facts += facts_of_creation(records.record, create, pair)
    records.write(facts)


def _account(
    operations: Mapping[Any, T],
    failed: Mapping[Any, VethError],
    execution: Execution,
    made: Callable[[T], None],
) -> None:
    for key, operation in operations.items():
        if (error := failed.get(key)) is not None:
            execution.errors.append((operation, error))
        else:
            made(operation)
