"""Waiting for the end of duplicate address detection, after a plan was executed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from vethlib.addresses import identity_of
from vethlib.agent.config.model import Interface
from vethlib.agent.host.executed import Execution
from vethlib.agent.host.observation import look_at
from vethlib.agent.planning.detection import may_be_detected, unusable
from vethlib.agent.planning.observed import SeenLink
from vethlib.agent.planning.operations import Plan
from vethlib.agent.reasons import Reason, duplicate_mac
from vethlib.agent.state import State, Verdict
from vethlib.cli.term.progress import Progress
from vethlib.errors import VethError
from vethlib.session import Session

__all__ = ["after_detection"]

_PATIENCE: Final = 15.0  # seconds: two by the kernel's defaults (RFC 4862, 5.4), and more on a busy host
_PAUSES: Final = (0.001, 0.1)


def after_detection(
    session: Session,
    interfaces: Mapping[str, Interface],
    planned: Plan,
    execution: Execution,
    deadline: float,
    progress: Progress,
) -> dict[str, Verdict]:
    """Return the state of every interface as soon as its addresses can be used.

    Waits until `deadline` on the monotonic clock, and at least for a few seconds. An interface whose addresses are
    still tentative then is PENDING; one with a duplicate is FAILED, because nothing tries again.
    """
    verdicts = execution.verdicts(planned)
    deadline = max(deadline, time.monotonic() + _PATIENCE)
    # The addresses of all others were usable when they were observed for the plan.
    touched = {name for operation in execution.done for name in operation.interfaces}
    waiting = {
        name
        for name in touched | planned.unusable.keys()
        if name in verdicts
        and verdicts[name].state is State.CONFIGURED
        and may_be_detected(interfaces[name], interfaces.get(interfaces[name].peer_if_name))
    }
    pause = _PAUSES[0]
    while waiting:
        for name, verdict in _observe(session, interfaces, waiting):
            if verdict is None or verdict.state is not State.PENDING:
                waiting.discard(name)
            if verdict is not None and verdict.state is State.RETRYING:
                verdict = replace(verdict, state=State.FAILED)
            verdicts[name] = verdict or Verdict(State.CONFIGURED)
        left = deadline - time.monotonic()
        if not waiting or left <= 0:
            break
        name = min(waiting)
        progress.show(f"waiting up to {left:.0f} s: {name}: {verdicts[name].reason}")
        time.sleep(min(pause, left))
        pause = min(2 * pause, _PAUSES[1])
    return verdicts


def _observe(
    session: Session, interfaces: Mapping[str, Interface], names: Iterable[str]
) -> Iterator[tuple[str, Verdict | None]]:
    """Yield the name and the state of each interface; None if its addresses can be used."""
    desired = {name: interfaces[name] for name in sorted(names)}
    links = [(interface.namespace.ref, interface.kernel_name) for interface in desired.values()]
    observed = look_at(session, dict(links), links, gone={}, create_missing=False)
    for name, interface in desired.items():
        place = observed.netns[interface.namespace.ref].place
        seen = None if place is None else observed.by_name.get((place, interface.kernel_name))
        if seen is None:
            yield name, None  # deleted since then, which does not concern detection
        elif lost := _lost(session, interface, seen):
            yield name, Verdict.because(State.RETRYING, lost)
        else:
            yield name, unusable(interface, seen, interfaces.get(interface.peer_if_name))


def _lost(session: Session, interface: Interface, seen: SeenLink) -> Reason | None:
    present = {address.identity for address in seen.addresses}
    lost = [each for each in interface.addresses if each.version == 6 and identity_of(each) not in present]
    try:
        settings = session.ipv6_settings(seen.link.name, seen.ref) if lost else None
    except VethError:
        return None
    return duplicate_mac(lost) if settings is not None and settings.may_be_switched_off_for_a_duplicate else None
