"""The reasons for states and warnings: a code for programs, and a text for people. Pure.

A code never changes, and neither does what it is about; new codes may be added. A text may change at any time. All
texts of the agent's own reasons are in this module.
"""

from __future__ import annotations

import errno as _errno
from collections.abc import Sequence
from enum import StrEnum
from functools import cache
from typing import Any, Final, NamedTuple

from vethlib.errors import InvalidValue, NetnsNotFound, VethError

__all__ = ["Reason", "ReasonCode", "listed", "of_error", "of_peer"]

_LISTED: Final = 3  # addresses in a reason
_WARNED: Final = 8  # addresses in a warning


class ReasonCode(StrEnum):
    """The code of a reason. `subject` is what :attr:`Reason.about` contains; `meaning` describes the reason."""

    subject: str
    meaning: str

    def __new__(cls, value: str, subject: str, meaning: str) -> ReasonCode:
        """Create a member, with its description."""
        code = str.__new__(cls, value)
        code._value_ = value
        code.subject, code.meaning = subject, meaning
        return code

    # what a pair needs
    PEER_NOT_CONFIGURED = "peer-not-configured", "peer", "the interface at the other end is not configured"
    PEER_INVALID = "peer-invalid", "peer", "the interface at the other end is INVALID, and never had a valid value"
    PEER_POINTS_ELSEWHERE = "peer-points-elsewhere", "peer", "the peer names another interface as its peer"
    PEER_FAILED = "peer-failed", "peer", "the peer is FAILED"
    NETNS_NOT_FOUND = "netns-not-found", "namespace", "the namespace does not exist"
    NOT_A_NETNS = (
        "not-a-netns",
        "namespace",
        "something that is not a network namespace has its name or path, or another user's link leads there",
    )
    PROCESS_GONE = "process-gone", "namespace", "the process with that `pid` has ended, or never existed"
    PROCESS_NOT_MOVED = "process-not-moved", "namespace", "the process is still in the agent's own network namespace"
    MICROSERVICE_NOT_RUNNING = "microservice-not-running", "namespace", "no running container has the label"
    RESOLVER_DOWN = "resolver-down", "namespace", "the container engine does not answer, or none is used"
    NETNS_LIMIT = "netns-limit", "namespace", "the namespace is missing, and the agent has created as many as it may"
    NETNS_BEING_DELETED = "netns-being-deleted", "namespace", "another program is deleting the namespace"
    NETNS_UNKNOWN = "netns-unknown", "namespace", "it is not known whether the namespace exists"
    MASTER_NOT_FOUND = "master-not-found", "link", "the bridge or VRF that the link is to be attached to does not exist"
    ADDRESS_TENTATIVE = "address-tentative", "address", "duplicate address detection has not finished"
    NEEDS_REBUILD = "needs-rebuild", "field", "only a rebuilt pair can have the configured value"
    NAME_TAKEN = "name-taken", "link", "the link cannot be renamed while another link has the name"
    NOT_READ = "not-read", "", "the agent has not reported anything about the interface yet"
    # a name that another link or interface has
    NAME_CLAIMED = "name-claimed", "interface", "another interface, which takes precedence, claims one of its names"
    LINK_FOREIGN = "link-foreign", "link", "a link that another program created has the name"
    LINK_OF_OTHER_LABEL = "link-of-other-label", "label", "a link of an agent with another label has the name"
    LINK_UNRECORDED = "link-unrecorded", "link", "a link with this agent's marks, but not in its record, has the name"
    LINK_ALTNAME = "link-altname", "link", "the name is an alternative name of another link"
    LINK_IN_USE = "link-in-use", "interface", "the link that has the name still belongs to another interface"
    # what did not work, or did not last
    DRIFT_PERSISTS = "drift-persists", "field", "the same difference was found again after each attempt"
    SURPLUS_LEFT = "surplus-left", "field", "unconfigured values remain: only some are removed at a time"
    CHANGED_REPEATEDLY = "changed-repeatedly", "field", "another program keeps changing the link; repairs are delayed"
    DUPLICATE_ADDRESS = "duplicate-address", "address", "another host on the link has the address"
    DUPLICATE_OF_PEER = "duplicate-of-peer", "address", "the other end of the pair has the address"
    DUPLICATE_MAC = "duplicate-mac", "address", "another host has the MAC address, and the kernel switched IPv6 off"
    NOT_DELETABLE = "not-deletable", "interface", "its pair cannot be deleted: its namespace cannot be inspected"
    # what the kernel, the host or a limit refused
    LINK_EXISTS = "link-exists", "namespace", "a link with the name was created just before the operation"
    LINK_NOT_FOUND = "link-not-found", "namespace", "the link was deleted or replaced in the meantime"
    NETNS_EXISTS = "netns-exists", "namespace", "the namespace was created in the meantime"
    NOT_PERMITTED = "not-permitted", "namespace", "a capability or a permission is missing"
    NOT_SUPPORTED = "not-supported", "namespace", "the kernel, or this kind of link, does not support it"
    NETLINK_ERROR = "netlink-error", "namespace", "the kernel refused it for another reason: see `errno`"
    MALFORMED = "malformed", "namespace", "the kernel sent something that cannot be parsed"
    WAIT_TIMEOUT = "wait-timeout", "", "something took too long"
    INVALID_VALUE = "invalid-value", "field", "the value cannot be used"
    REFUSED = "refused", "", "anything else that was refused"
    UNFORESEEN = "unforeseen", "", "an error in vethlib, confined to these interfaces"
    # warnings
    UNCHECKED = "unchecked", "", "the link exists, but the source of its namespace does not answer"
    EVENTS_IGNORED = "events-ignored", "", "its namespace sends too many events, and is checked only now and then"
    EVENTS_MISSED = (
        "events-missed",
        "",
        "its namespace cannot be watched, or its path leads through too many names, so changes are not noticed",
    )
    ADDRESS_OWNER_UNKNOWN = (
        "address-owner-unknown",
        "",
        "it is not known who added an address that is not configured",
    )
    RESOLVER_REMARK = (
        "resolver-remark",
        "",
        "a remark from the container engine, for example that several containers have the same label",
    )


WARNINGS: Final = (
    ReasonCode.UNCHECKED,
    ReasonCode.EVENTS_IGNORED,
    ReasonCode.EVENTS_MISSED,
    ReasonCode.ADDRESS_OWNER_UNKNOWN,
    ReasonCode.RESOLVER_REMARK,
)
"""The codes of :attr:`Status.warning_code`; all others are those of reasons."""


class Reason(NamedTuple):
    """A reason: its `code`, a `text` for people, and what it is `about`.

    `about` is an interface, a reference of a namespace, a link, a label, an address or a field, as its code says.
    `errno` is the name of the kernel's error number, "" if there is none.
    """

    code: ReasonCode
    text: str
    about: str = ""
    errno: str = ""

    def __str__(self) -> str:
        return self.text

    def as_dict(self) -> dict[str, Any]:
        """Return the reason for JSON, without its text."""
        entry = {"code": str(self.code), "about": self.about}
        return entry | {"errno": self.errno} if self.errno else entry


# --- what a pair needs


def peer_not_configured(peer: str) -> Reason:
    """Return the reason of an interface whose peer is missing."""
    return Reason(ReasonCode.PEER_NOT_CONFIGURED, f"peer {peer} is not configured", peer)


def peer_invalid(peer: str) -> Reason:
    """Return the reason of an interface whose peer has an invalid value, and had no valid one before."""
    return Reason(ReasonCode.PEER_INVALID, f"peer {peer} is INVALID", peer)


def peer_points_elsewhere(peer: str, at: str) -> Reason:
    """Return the reason of an interface whose peer names another interface as its peer."""
    return Reason(ReasonCode.PEER_POINTS_ELSEWHERE, f"peer {peer} names {at} as its peer, not this interface", peer)


def peer_failed(peer: str, why: str) -> Reason:
    """Return the reason of an interface whose peer is FAILED."""
    return Reason(ReasonCode.PEER_FAILED, f"peer {peer} failed: {why}", peer)


def master_not_found(end: str, master: str) -> Reason:
    """Return the reason of an interface whose master is missing."""
    return Reason(
        ReasonCode.MASTER_NOT_FOUND,
        f"the master of {end}, {master!r}, does not exist: create it, or remove the field",
        master,
    )


def of_peer(peer: str, reason: Reason) -> Reason:
    """Return the reason of an interface that waits for something that its peer needs."""
    return reason._replace(text=f"peer {peer}: {reason.text}")


def needs_rebuild(name: str, field: str, observed: object, desired: object) -> Reason:
    """Return the reason for rebuilding a pair."""
    return Reason(ReasonCode.NEEDS_REBUILD, f"{name} has {field} {observed}, not {desired}", field)


def name_taken(link: str, name: str) -> Reason:
    """Return why a link cannot be renamed."""
    return Reason(ReasonCode.NAME_TAKEN, f"{link!r} cannot be renamed while {name!r} is taken", name)


def netns_limit(path: str, ref: str, limit: int) -> Reason:
    """Return why a missing namespace is not created."""
    text = f"{path} does not exist, and this agent creates no more than {limit} namespaces (limit netns_made)"
    return Reason(ReasonCode.NETNS_LIMIT, text, ref)


def netns_being_deleted(path: str, ref: str) -> Reason:
    """Return why a missing namespace is not created yet."""
    return Reason(ReasonCode.NETNS_BEING_DELETED, f"{path} is being deleted: its file still exists", ref)


def process_not_moved(pid: int, ref: str, label: str = "") -> Reason:
    """Return why a reference to a process, of a microservice if `label` is given, leads nowhere yet."""
    whose = f"microservice {label}: " if label else ""
    text = f"{whose}process {pid} has not unshared its network namespace yet: it is in the agent's own"
    return Reason(ReasonCode.PROCESS_NOT_MOVED, text, ref)


def not_read() -> Reason:
    """Return the reason of an interface without a status."""
    return Reason(ReasonCode.NOT_READ, "the agent has not read it yet")


# --- a name that another link or interface has; `end` is the interface's own end, as text, with the name at issue


def name_claimed(end: str, holder: str) -> Reason:
    """Return the reason of an interface with a name that another interface gets."""
    return Reason(ReasonCode.NAME_CLAIMED, f"{end} is also claimed by {holder}, which takes precedence", holder)


def link_foreign(end: str, name: str, kind: str, alias: str) -> Reason:
    """Return the reason of an interface whose name is taken by a link that another program created."""
    known = [f"kind {kind}"] if kind else []
    known += [f"alias {alias!r}"] if alias else []
    shown = f" ({', '.join(known)})" if known else ""
    cure = "delete or rename it, or configure another name"
    return Reason(ReasonCode.LINK_FOREIGN, f"{_not_managed(end)}{shown}: {cure}", name)


def link_of_other_label(end: str, kind: str, owner: str, label: str) -> Reason:
    """Return the reason of an interface whose name is taken by a link of another agent."""
    cure = f"it is {owner} of the agent with the label {label}: delete it, or use that label"
    return Reason(ReasonCode.LINK_OF_OTHER_LABEL, f"{_not_managed(end)} (kind {kind}): {cure}", label)


def link_unrecorded(end: str, name: str, kind: str, owner: str) -> Reason:
    """Return the reason of an interface whose name is taken by a link that only looks like one of this agent's."""
    cure = (
        f"it has the alias of {owner}, but there is no record that this agent built "
        "it, or its other end has another alias: delete it, or configure another name"
    )
    return Reason(ReasonCode.LINK_UNRECORDED, f"{_not_managed(end)} (kind {kind}): {cure}", name)


def _not_managed(end: str) -> str:
    return f"{end} exists and is not managed by this agent"


def link_altname(end: str, link: str) -> Reason:
    """Return the reason of an interface whose name is an alternative name of a link."""
    text = f"{end} exists as an alternative name of {link!r}: remove that name, or configure another one"
    return Reason(ReasonCode.LINK_ALTNAME, text, link)


def link_in_use(end: str, owner: str) -> Reason:
    """Return the reason of an interface whose name is taken by the link of another one, `owner` ("" if unknown)."""
    return Reason(ReasonCode.LINK_IN_USE, f"{end} is still the link of {owner or 'another interface'}", owner)


# --- duplicate address detection


def address_tentative(addresses: Sequence[object]) -> Reason:
    """Return the reason of an interface whose addresses are being checked."""
    text = f"{listed(addresses)}: duplicate address detection has not finished"
    return Reason(ReasonCode.ADDRESS_TENTATIVE, text, str(addresses[0]))


def source_tentative(route: object, source: object) -> Reason:
    """Return the reason of an interface with a route whose source is an address that is being checked."""
    text = (
        f"route {route}: duplicate address detection of its source has not finished "
        "(it begins when both ends are up; an address with nodad has none)"
    )
    return Reason(ReasonCode.ADDRESS_TENTATIVE, text, str(source))


def duplicate_address(addresses: Sequence[object], peer: str = "") -> Reason:
    """Return the reason of an interface with duplicate addresses; `peer` is the other end, if it has one of them."""
    code = ReasonCode.DUPLICATE_OF_PEER if peer else ReasonCode.DUPLICATE_ADDRESS
    who = f"the other end, {peer}," if peer else "another host on the link"
    text = f"{listed(addresses)}: duplicate address detection failed: {who} has the same address"
    return Reason(code, text, str(addresses[0]))


def duplicate_mac(addresses: Sequence[object]) -> Reason:
    """Return the reason of an interface that has lost these addresses because the MAC of its link is a duplicate."""
    text = (
        f"{listed(addresses)}: duplicate address detection failed: another host on the link has the same MAC address, "
        "and the kernel switched IPv6 off (accept_dad is 2)"
    )
    return Reason(ReasonCode.DUPLICATE_MAC, text, str(addresses[0]))


def listed(addresses: Sequence[object]) -> str:
    """List the first addresses, and the number of the others."""
    text = ", ".join(map(str, addresses[:_LISTED]))
    return text if len(addresses) <= _LISTED else f"{text} and {len(addresses) - _LISTED} more"


# --- what did not last, or was refused


def drift_persists(drift: str, field: str, attempts: int) -> Reason:
    """Return the reason of an interface with a drift that no attempt has corrected."""
    return Reason(ReasonCode.DRIFT_PERSISTS, f"{drift}, after {attempts} attempts in a row", field)


def surplus_left(field: str, at_once: int) -> Reason:
    """Return the reason of an interface whose surplus values are not removed all at once."""
    text = f"more than {at_once} unconfigured {field}; {at_once} are removed at a time"
    return Reason(ReasonCode.SURPLUS_LEFT, text, field)


def changed_repeatedly(drift: str, field: str, repairs: int) -> Reason:
    """Return the reason of an interface whose next repair has to wait."""
    text = f"{drift}; repaired {repairs} times in a row, and changed again by another program"
    return Reason(ReasonCode.CHANGED_REPEATEDLY, text, field)


def not_deletable(name: str, why: str) -> Reason:
    """Return the reason of an interface that is not configured, but whose link cannot be seen."""
    return Reason(ReasonCode.NOT_DELETABLE, f"it cannot be deleted: {why}", name)


def unchecked(why: str) -> Reason:
    """Return the warning about an interface that matches, but only as far as events show."""
    return Reason(ReasonCode.UNCHECKED, f"the link exists, but cannot be checked: {why}")


def events_ignored() -> Reason:
    """Return the warning about an interface in a namespace that was too noisy."""
    text = "its namespace sends too many events: it is checked only now and then"
    return Reason(ReasonCode.EVENTS_IGNORED, text)


def events_missed(why: str) -> Reason:
    """Return the warning about an interface in a namespace that cannot be watched."""
    return Reason(ReasonCode.EVENTS_MISSED, f"changes of its link are not noticed: {why}")


def moves_missed(why: str) -> Reason:
    """Return the warning about an interface whose namespace reference is not followed to its end."""
    return Reason(
        ReasonCode.EVENTS_MISSED, f"the agent does not notice if its reference leads to another namespace: {why}"
    )


def address_owner_unknown(addresses: Sequence[object]) -> Reason:
    """Return the warning about an interface with addresses of which it is unknown who added them."""
    which = ", ".join(map(str, addresses[:_WARNED])) + (", …" if len(addresses) > _WARNED else "")
    text = f"not configured, but not removed, because this kernel (before 5.18) does not record who added it: {which}"
    return Reason(ReasonCode.ADDRESS_OWNER_UNKNOWN, text)


def invalid_value(problem: InvalidValue) -> Reason:
    """Return an invalid value as a reason that everybody may read."""
    return Reason(ReasonCode.INVALID_VALUE, problem.public, problem.field)


_MISSING: Final = {
    "pid": ReasonCode.PROCESS_GONE,
    "microservice": ReasonCode.MICROSERVICE_NOT_RUNNING,
}


def of_error(error: VethError, ref: str = "") -> Reason:
    """Return a refusal as a reason; it is about the namespace `ref` if the error does not name one."""
    netns = str(getattr(error, "netns", "")) or ref
    if isinstance(error, NetnsNotFound):
        kind = netns.partition(":")[0]
        code = ReasonCode.NOT_A_NETNS if error.taken else _MISSING.get(kind, ReasonCode.NETNS_NOT_FOUND)
        return Reason(code, str(error), netns)
    code = _code_of(tuple(kind.__name__ for kind in type(error).__mro__))
    number = getattr(error, "errno", 0)
    return Reason(
        code,
        str(error),
        error.field if isinstance(error, InvalidValue) else netns if code.subject == "namespace" else "",
        _errno.errorcode.get(number, str(number)) if number else "",
    )


@cache
def _code_of(classes: tuple[str, ...]) -> ReasonCode:
    """Return the code that is named after the first of these classes that has one, as codes of vethctl's errors are."""
    codes = {str(code): code for code in ReasonCode}
    for name in classes:
        kebab = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")
        if kebab in codes:
            return codes[kebab]
    return ReasonCode.REFUSED
