"""Which missing named namespaces a pair may create, and a warning about those that were created by mistake.

1. There is a limit. A namespace takes some 200 KiB of kernel memory and remains after its interface is deleted, so a
   writer of configuration could fill the host with them. The namespaces that this agent has created and that still
   exist count, and also those that its first configuration names, because an earlier run may have created them.
2. A namespace that another program is deleting is not created again before its name is free. ``ip netns del`` unmounts
   the namespace and then removes its file. The unmounting is an event, so that an agent may get between the two; if it
   mounted a new namespace on that file, the other program's unlink(2) would fail with EBUSY, and if it removed the
   file, with ENOENT. If the file remains for `PATIENCE` seconds, its remover was killed.
3. A name is enough to create a namespace. So a typing error creates one, and the interface that should be in another
   namespace is CONFIGURED. That is why a name that nearly equals that of another namespace causes a warning.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Final

from vethlib import ns
from vethlib._primitives import time
from vethlib.agent.config.model import Interface
from vethlib.agent.planning.observed import Observed, SeenNetns
from vethlib.agent.planning.operations import AddNetns, Operation
from vethlib.agent.planning.plausibility import ConfigWarning, lookalike, similar_netns
from vethlib.agent.reasons import Reason, netns_being_deleted, netns_limit
from vethlib.errors import VethError

__all__ = ["CreatableNetns"]

_AGAIN: Final = 10.0  # seconds between two checks whether created namespaces have ended, while some wait for that
_RECOUNT: Final = 1.0  # seconds between two such checks because the limit would refuse a namespace
_MANY: Final = 1024  # names that are remembered, until those that are no longer configured are forgotten

PATIENCE: Final = 10.0
"""Seconds after which the file of a deleted namespace is taken for a leftover."""


def _has_file(ref: str) -> bool:
    return os.path.lexists(ns.parse(ref).path)


def _absent(netns: SeenNetns, reason: Reason) -> SeenNetns:
    """Return a missing namespace as one that must not be created now."""
    return replace(netns, place=None, missing=False, reason=reason.text, code=reason.code)


class CreatableNetns:
    """The named namespaces that were created, are being deleted, or wait for others to be deleted.

    No namespace may be created unless `create_missing`, and no more than `limit`. `at` returns the names of the
    interfaces that are configured with a reference. `has_file` returns whether a namespace's file exists.
    """

    def __init__(
        self,
        limit: int,
        at: Callable[[str], Collection[str]],
        *,
        create_missing: bool,
        has_file: Callable[[str], bool] = _has_file,
    ) -> None:
        self.create_missing = create_missing
        self._limit = limit
        self._at = at
        self._has_file = has_file
        self._created: set[str] = set()
        self._waiting: dict[str, None] = {}  # refused by the limit, in that order
        self._due = 0.0  # time of the next observation, if any wait
        self._counted = -_RECOUNT  # when it was last checked which of the created ones have ended
        self._room = _MANY
        self._is_first = True
        self._present: set[str] = set()  # references present at the last observation
        self._deleted: dict[str, float] = {}  # when the file was first seen without its namespace
        self._compared: set[str] = set()  # names that no longer need to be compared with others
        self._lookalikes: dict[str, str] = {}  # by name of a created one: the namespace with nearly the same name

    def start(self, refs: Iterable[str], observed: Observed) -> None:
        """Count the namespaces of these references that exist as created, on the first call that has any."""
        named = [ref for ref in refs if ref.startswith("netns:")]
        if self._is_first and named:
            self._is_first = False
            self._created.update(ref for ref in named if isinstance(observed.netns[ref].place, tuple))

    def admit(self, observed: Observed) -> Observed:
        """Return `observed` without the missing namespaces that may not be created now."""
        if len(self._present) + len(self._compared) + len(self._deleted) > self._room:
            self._forget_unconfigured()
        changed = self._being_deleted(observed)
        changed |= self._over_limit({**observed.netns, **changed})
        return replace(observed, netns={**observed.netns, **changed}) if changed else observed

    def _forget_unconfigured(self) -> None:
        self._present = {ref for ref in self._present if self._at(ref)}
        self._deleted = {ref: since for ref, since in self._deleted.items() if self._at(ref)}
        self._compared = {name for name in self._compared if self._at(f"netns:{name}")}
        self._room = 2 * (len(self._present) + len(self._compared) + len(self._deleted)) + _MANY

    def _being_deleted(self, observed: Observed) -> dict[str, SeenNetns]:
        """Return the namespaces that are being deleted: not to be created now, but to be tried again."""
        waiting = {}
        for ref, netns in observed.netns.items():
            if isinstance(netns.place, tuple):
                self._deleted.pop(ref, None)
                if ref.startswith("netns:"):
                    self._present.add(ref)
            elif ref not in self._present:
                continue
            elif (
                netns.missing
                and self._has_file(ref)
                and time.monotonic() - self._deleted.setdefault(ref, time.monotonic()) < PATIENCE
            ):
                reason = netns_being_deleted(ns.parse(ref).path, ref)
                waiting[ref] = replace(_absent(netns, reason), refused=True)
            else:
                self._present.discard(ref)
                self._deleted.pop(ref, None)
                self._compared.add(ns.parse(ref).value)  # it has existed, so its name is not a mistake
        return waiting

    def _over_limit(self, observed: dict[str, SeenNetns]) -> dict[str, SeenNetns]:
        """Return the missing namespaces that the limit does not allow to be created."""
        missing = sorted(ref for ref, netns in observed.items() if netns.missing and netns.place is not None)
        for ref in self._waiting.keys() & observed.keys() - set(missing):
            del self._waiting[ref]
        if not missing:
            return {}
        left = self._left(missing)
        if left < len(missing) and time.monotonic() >= self._counted + _RECOUNT:
            self._forget_ended()
            left = self._left(missing)
        for ref in missing[:left]:
            self._waiting.pop(ref, None)
        refused = missing[left:]
        if refused and not self._waiting:
            self._due = self._counted + _RECOUNT
        self._waiting |= dict.fromkeys(refused)
        return {ref: _absent(observed[ref], netns_limit(ns.parse(ref).path, ref, self._limit)) for ref in refused}

    def _left(self, missing: Iterable[str] = ()) -> int:
        """Return how many more namespaces may be created; those that are missing now do not count."""
        return max(0, self._limit - len(self._created.difference(missing)))

    def _forget_ended(self) -> None:
        self._counted = time.monotonic()
        self._created = {ref for ref in self._created if self._has_file(ref)}

    def due(self) -> float | None:
        """Return when to call :meth:`freed`, by time.monotonic(); None while no reference waits."""
        return self._due if self._waiting else None

    def freed(self, now: float) -> list[str]:
        """Return the references to look at again, because some of the created namespaces have ended."""
        if not self._waiting or now < self._due:
            return []
        self._due = now + _AGAIN
        self._waiting = {ref: None for ref in self._waiting if self._at(ref)}
        self._forget_ended()
        return list(self._waiting)[: self._left()]

    def note(self, done: Iterable[Operation]) -> None:
        """Count the namespaces that these operations created, and compare their names with the existing ones."""
        created = [operation for operation in done if isinstance(operation, AddNetns)]
        self._created.update(operation.ref for operation in created)
        if new := [operation.name for operation in created if operation.name not in self._compared]:
            self._compared.update(new)
            self._compare_names(new)

    # --- similar names

    def _compare_names(self, created: Iterable[str]) -> None:
        """Look for other namespaces with nearly the same names as these, which were created."""
        existing = self._unconfigured()
        for name in created:
            if other := lookalike(name, existing):
                self._lookalikes[name] = other
        self._lookalikes = {name: other for name, other in self._lookalikes.items() if self._at(f"netns:{name}")}

    def warnings(self, interface: Interface) -> tuple[ConfigWarning, ...]:
        """Return the warning about an interface in such a namespace; () for any other."""
        if not self._lookalikes:
            return ()
        name = interface.namespace.name
        other = self._lookalikes.get(name)
        return () if other is None else (similar_netns([interface.name], name, other),)

    def _unconfigured(self) -> list[str]:
        """Return the names of existing namespaces that no interface uses; others are compared as configuration."""
        try:
            return [name for name in ns.names() if not self._at(f"netns:{name}")]
        except VethError:
            return []
