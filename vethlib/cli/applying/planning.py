"""One observation of this host and the plan for it: for apply, its --dry-run and --try, for diff, graph and demo."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass

from vethlib.agent.config.model import Interface
from vethlib.agent.host.observation import observe_all
from vethlib.agent.host.recordfile import RecordFile
from vethlib.agent.host.recording import plan_and_note
from vethlib.agent.planning.observed import Observed
from vethlib.agent.planning.operations import Plan
from vethlib.agent.planning.planner import plan
from vethlib.session import Session

__all__ = ["Desired", "Planned", "observe_and_plan", "observe_and_record"]


@dataclass(frozen=True, slots=True)
class Desired:
    """The desired interfaces of a label, by name.

    `prune`: delete the other pairs of the label, too, or only those of the named interfaces. `unknown` are the names
    of interfaces whose desired state is not known. `creates_netns`: create missing named namespaces.
    """

    interfaces: Mapping[str, Interface]
    label: str
    prune: bool | Set[str] = False
    unknown: Collection[str] = ()
    creates_netns: bool = True

    @property
    def refs(self) -> list[str]:
        """The namespaces of the interfaces."""
        return [interface.namespace.ref for interface in self.interfaces.values()]


@dataclass(frozen=True, slots=True)
class Planned:
    """The observed state, and the plan to bring it to the desired one."""

    observed: Observed
    plan: Plan


def _observe(session: Session, desired: Desired, records: RecordFile) -> Observed:
    creates, interfaces = desired.creates_netns, desired.interfaces.values()
    return observe_all(session, desired.refs, records, create_missing=creates, interfaces=interfaces)


def observe_and_plan(session: Session, desired: Desired, records: RecordFile) -> Planned:
    """Observe this host and plan, without writing anything."""
    observed = _observe(session, desired, records)
    planned = plan(
        desired.interfaces,
        observed,
        label=desired.label,
        prune=desired.prune,
        leave=desired.unknown,
        record=records.record,
    )
    return Planned(observed, planned)


def observe_and_record(session: Session, desired: Desired, records: RecordFile) -> Planned:
    """Observe this host and plan, and record the pairs that were found, before the plan is executed."""
    observed = _observe(session, desired, records)
    prune = desired.prune is True
    return Planned(observed, plan_and_note(desired.interfaces, observed, records, label=desired.label, prune=prune))
