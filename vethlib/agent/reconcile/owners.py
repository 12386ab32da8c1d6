"""The owners of a configurator's state, each of one part of it: everything that works on that state is given these."""

from __future__ import annotations

from dataclasses import dataclass

from vethlib.agent.host.recordfile import RecordFile
from vethlib.agent.limits import Limits
from vethlib.agent.planning.desired import Desired
from vethlib.agent.registry.dependants import Dependants
from vethlib.agent.registry.indexes import Indexes
from vethlib.session import Session

from .backoff import Backoff
from .counters import Counters
from .observer import HostObserver
from .occasions import Occasions
from .statuses import Statuses

__all__ = ["Owners"]


@dataclass(frozen=True, slots=True)
class Owners:
    """What is desired, what to look at, when to try again, what is known of the host, and what is reported about it.

    `home` is the identity of the home namespace, `records` the record of built pairs.
    """

    session: Session
    label: str
    home: tuple[int, int]
    limits: Limits
    records: RecordFile
    desired: Desired
    occasions: Occasions
    backoff: Backoff
    observer: HostObserver
    statuses: Statuses
    indexes: Indexes
    dependants: Dependants
    counters: Counters
