"""Configure the ends of new pairs: everything that the message that creates a pair cannot contain.

One datagram per namespace contains, for each end, its master, addresses, alias and other fields, the message that sets
it up, and the fields that need a link that is up. Two kinds of refusals are not final. A refused IPv6 address is added
again after IPv6 has been enabled on the link, and so are its routes. A route whose source the kernel still checks for
duplicates is sent again after the check (:mod:`vethlib.session.read.sources`); the caller decides when to wait for
that.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from ipaddress import IPv6Address
from typing import Any, Final, NamedTuple, TypeAlias

from vethlib._nl.addr import new_addr, parse_addr, restore_addr
from vethlib._nl.batch import DONE, Outcome
from vethlib._nl.link import set_link, set_up
from vethlib._nl.wire import encoded
from vethlib.addresses import PLAIN, as_address
from vethlib.endfields.checks import MasterName
from vethlib.endfields.table import ALTNAMES, FIELDS, MASTER
from vethlib.errors import VethError
from vethlib.links import IPInterface, describe
from vethlib.session.core.ipv6 import enable_ipv6, is_disabled, switch_ipv6
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.core.refusal import loading
from vethlib.session.core.settings import write_settings
from vethlib.session.write.addressing import as_sent
from vethlib.session.write.masters import find_masters, no_master

from .job import Job, Side

__all__ = ["Ends", "LateStep", "awaited_source", "configure", "send_when_checked", "step_text", "write_unsent"]

Ends = list[tuple[Job, Side]]


def write_unsent(namespaces: Namespaces, jobs: Sequence[Job]) -> None:
    """Write what no message can set: whether an end has IPv6, its sysctls, and what it leaves to a network card."""
    ipv6: dict[OpenNetns, dict[int, bool]] = {}
    direct: dict[OpenNetns, dict[int, Mapping[str, Any]]] = {}
    for job in jobs:
        if job.made and job.error is None:
            for side in (job.outer, job.peer):
                if side.end.ipv6 is not None:
                    ipv6.setdefault(side.place, {})[side.index] = side.end.ipv6
                if side.end.has_direct:
                    direct.setdefault(side.place, {})[side.index] = side.end.further
    failed: dict[tuple[OpenNetns, int], VethError] = {**(switch_ipv6(namespaces, ipv6) if ipv6 else {})}
    if direct:
        failed |= write_settings(namespaces, direct)
    for job in jobs if failed else ():
        for side in (job.outer, job.peer):
            if (error := failed.get((side.place, side.index))) is not None:
                job.failed(error)


def _find_masters(namespaces: Namespaces, place: OpenNetns, ends: Ends) -> dict[str, MasterName | Outcome]:
    """Find the masters of the ends in a namespace, if any, and note which ends cannot get theirs."""
    names = [side.end.master for _, side in ends if side.end.master]
    masters = find_masters(namespaces, place, names) if names else {}
    for job, side in ends if masters else ():
        if isinstance(found := masters[side.end.master], Outcome):
            job.refused(found, says=no_master(found, side.end.master, side.end.netns), side=side)
    return masters


class _Sent(NamedTuple):
    """What a message does, for errors."""

    field: str
    what: object

    def __str__(self) -> str:
        return f"set its {self.what}" if isinstance(self.what, str) else f"set its {self.field[:-1]} {self.what}"


_What: TypeAlias = str | _Sent | IPInterface
"""What a message does: it sets a field, adds an address, or does what the text describes."""

_Steps = list[tuple[_Sent, bytes]]
_NO_STEPS: Final[tuple[_Steps, _Steps, _Steps]] = ([], [], [])
_sent = partial(tuple.__new__, _Sent)  # as in _nl/link.py


def _field_steps(index: int, further: Mapping[str, Any]) -> tuple[_Steps, _Steps, _Steps]:
    """Return the messages for the further fields of an end: those sent first, those in the middle, and those last."""
    early: _Steps = []
    usual: _Steps = []
    late: _Steps = []
    for name, value in further.items():
        field = FIELDS[name]
        steps = early if field.early else late if field.late else usual
        for what, request in field.creation(index, value):
            steps.append((_sent((name, what)), request))
    return early, usual, late


def _end_steps(side: Side, masters: Mapping[str, MasterName | Outcome]) -> list[tuple[_What, bytes]]:
    """Return the messages for an end, in order, each with what it does."""
    end, index = side.end, side.index
    further = end.further
    if further and masters:
        further = {**further, MASTER: masters[further.get(MASTER, "")]}
    early, usual, late = _field_steps(index, further) if further else _NO_STEPS
    steps: list[tuple[_What, bytes]] = [*early]
    for interface in as_sent(end.interfaces):
        steps.append((interface, _address_request(index, interface, end.address_proto)))
    if end.alias is not None:
        steps.append(("set its alias", set_link(index, alias=encoded(end.alias))))
    steps += usual
    if end.up:
        steps.append(("bring it up", set_up(index)))
    steps += late
    return steps


class LateStep(NamedTuple):
    """A late step that was refused, and may succeed later."""

    job: Job
    side: Side
    sent: _Sent
    request: bytes
    outcome: Outcome


def configure(refused: list[LateStep], namespaces: Namespaces, place: OpenNetns, ends: Ends) -> None:
    """Configure ends; the late steps that were refused are appended to `refused`."""
    masters = _find_masters(namespaces, place, ends)
    steps = [(job, side, *step) for job, side in ends if job.error is None for step in _end_steps(side, masters)]
    without_ipv6: list[tuple[Job, Side, IPInterface]] = []
    late_refused: list[LateStep] = []
    outcomes = namespaces.change(place, [request for *_, request in steps])
    for (job, side, step, request), outcome in zip(steps, outcomes, strict=True):
        if outcome is DONE:
            continue
        if isinstance(step, _Sent) and FIELDS[step.field].late:
            late_refused.append(LateStep(job, side, step, request, outcome))
        elif not isinstance(step, str | _Sent) and is_disabled(outcome, step):
            without_ipv6.append((job, side, step))
        else:
            job.refused(outcome, says=step_text(outcome, side, step), side=side, is_taken=_is_taken(outcome, step))
    if without_ipv6:
        _add_with_ipv6_enabled(namespaces, place, without_ipv6)
        enabled = {side for _, side, _ in without_ipv6}
        again = [each for each in late_refused if each.side in enabled]
        late_refused = [each for each in late_refused if each.side not in enabled]
        late_refused += _sent_again(namespaces, place, again)
    refused += late_refused


def _sent_again(namespaces: Namespaces, place: OpenNetns, steps: Sequence[LateStep]) -> Iterator[LateStep]:
    """Send late steps in a namespace again, and yield those that are still refused."""
    steps = [each for each in steps if each.job.error is None]
    outcomes = namespaces.exchange(place, [each.request for each in steps]) if steps else []
    for each, outcome in zip(steps, outcomes, strict=True):
        if outcome.errno:
            yield each._replace(outcome=outcome)


def awaited_source(step: LateStep) -> IPv6Address | None:
    """Return the source of a route that may have been refused because it is still checked for duplicates."""
    with loading:
        from vethlib.session.read.sources import source_of  # rarely needed

    return source_of(step.sent.what) if step.job.error is None and step.outcome.errno == errno.EINVAL else None


def send_when_checked(namespaces: Namespaces, refused: Iterable[LateStep]) -> None:
    """Send late steps again when the sources of routes have been checked for duplicates; note the other refusals."""
    with loading:
        from vethlib.session.read.sources import until_checked  # as above

    sources: dict[tuple[OpenNetns, int], set[IPv6Address]] = {}
    for each in refused:
        if (source := awaited_source(each)) is not None:
            sources.setdefault((each.side.place, each.side.index), set()).add(source)
    vain = until_checked(namespaces, sources)
    again: dict[OpenNetns, list[LateStep]] = {}
    for each in refused:
        key = each.side.place, each.side.index
        if key in sources and key not in vain:
            again.setdefault(each.side.place, []).append(each)
        else:
            _note_refused(each, vain.get(key, ""))
    for place, steps in again.items():
        for each in _sent_again(namespaces, place, steps):
            _note_refused(each)


def _note_refused(step: LateStep, why: str = "") -> None:
    says = step_text(step.outcome, step.side, step.sent) + (f", because {why}" if why else "")
    step.job.refused(step.outcome, says=says, side=step.side)


def _address_request(index: int, interface: IPInterface, proto: int) -> bytes:
    """Return the RTM_NEWADDR for an ``ipaddress`` interface."""
    if type(interface) not in PLAIN and (body := as_address(interface, index, proto).message):
        return restore_addr(parse_addr(body))
    return new_addr(index, interface.packed, interface.network.prefixlen, proto)


def _add_with_ipv6_enabled(
    namespaces: Namespaces, place: OpenNetns, wanted: Sequence[tuple[Job, Side, IPInterface]]
) -> None:
    """Enable IPv6 on the links and add the addresses. If that fails (/proc/sys is read-only), only its pair fails."""
    failed = enable_ipv6(namespaces, place, {side.index: None for _, side, _ in wanted})
    for job, side, _ in wanted:
        if side.index in failed:
            job.failed(failed[side.index])
    wanted = [(job, side, interface) for job, side, interface in wanted if side.index not in failed]
    requests = [_address_request(side.index, interface, side.end.address_proto) for _, side, interface in wanted]
    for (job, side, interface), outcome in zip(wanted, namespaces.exchange(place, requests), strict=True):
        if outcome.errno:
            job.refused(outcome, says=step_text(outcome, side, interface), side=side)


def step_text(outcome: Outcome, side: Side, step: _What) -> str:
    """Describe that the kernel refused a step after it had created a link."""
    name = describe(side.name, side.end.netns)
    what = str(step) if isinstance(step, str | _Sent) else f"add {step}"
    exists = ""
    if _is_taken(outcome, step):
        exists = "a link of that name already exists there"
    elif isinstance(step, _Sent) and outcome.errno == errno.EEXIST:
        exists = FIELDS[step.field].exists
    return f"{name} was created, but the kernel refused to {what}: {exists or os.strerror(outcome.errno)}"


def _is_taken(outcome: Outcome, step: _What) -> bool:
    """Return whether another link in the namespace has the alternative name that a step sets."""
    return isinstance(step, _Sent) and step.field == ALTNAMES and outcome.errno == errno.EEXIST
