"""The fields and addresses of a changed link that are changed back: those that are still as the change left them.

Values that another program has set since stay (rule 3 of :mod:`.inversion`). The settings in /proc/sys/net are one
field, but each counts for itself. A setting without a value before cannot be undone, except together with the MTU:
below the minimum of IPv6, the kernel forgets those of IPv6.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, TypeAlias

from vethlib.addresses import Identity
from vethlib.agent.config.mark import ADDRESS_PROTO
from vethlib.agent.config.model import IPV6_MIN_MTU
from vethlib.agent.planning.observed import SeenLink
from vethlib.agent.planning.operations import ChangeLink, listed_identity
from vethlib.endfields.checks import ADDR_GEN_MODE, STABLE_SECRET, Sysctl, is_master, sysctls_target
from vethlib.endfields.table import ALTNAMES, FIELDS, MASTER, ROUTES, SYSCTLS
from vethlib.links import Address
from vethlib.text import value_text

__all__ = ["Fields", "differs_from", "reverted_addresses", "reverted_fields"]

Fields: TypeAlias = dict[str, tuple[Any, Any]]
"""Fields of a link, each with its present value and its next one, as in :class:`ChangeLink`."""

_SET_SINCE: Final = "because another program has set it since"


def reverted_fields(
    changes: Sequence[ChangeLink], before: SeenLink, present: SeenLink, *, is_begun: bool = False
) -> tuple[Fields, list[str]]:
    """Return the fields of a link that are changed back, and a description of each that stays.

    The change may have been made in several `changes`: steps that have only the alternative names in common. If it was
    only begun, a part of its routes may be as before, and others as after it.
    """
    change = changes[0] if len(changes) == 1 else _as_one(changes, before, present)
    return _reverted_by(change, before, present, is_begun=is_begun)


def _as_one(changes: Sequence[ChangeLink], before: SeenLink, present: SeenLink) -> ChangeLink:
    """Return the steps of a change of a link as one change; the last of them may not have been made."""
    fields = {name: values for change in changes for name, values in change.changes.items()}
    names = set(before.link.altnames)
    possible = []
    for change in changes:
        old, new = map(set, change.changes.get(ALTNAMES, ((), ())))
        possible.append(names)
        names = (names - (old - new)) | (new - old)
    now = present.value_of(ALTNAMES)
    fields[ALTNAMES] = before.link.altnames, now if set(now) in possible else tuple(names)
    return replace(changes[0], changes=fields)


def _reverted_by(
    change: ChangeLink, before: SeenLink, present: SeenLink, *, is_begun: bool
) -> tuple[Fields, list[str]]:
    fields: Fields = {}
    stay: list[str] = []
    for name, (old, new) in change.changes.items():
        value = present.value_of(name)
        if value is None and name in FIELDS and new == FIELDS[name].none:
            value = new  # it was not read, because its mark says that there is nothing to be read
        if name == SYSCTLS and None not in (old, value):
            continue
        in_part = is_begun and name == ROUTES and not _is_same_value(name, value, old)
        if old is not None and (in_part or _is_same_value(name, value, new)):
            fields[name] = (value, old)
        elif not _is_same_value(name, value, old):
            field = "it" if name == "up" else name
            stay.append(f"{field} stays {value_text(name, value)}, {_SET_SINCE}")
    settings = _Settings([], [], stay)
    old, new = change.changes.get(SYSCTLS, (None, ()))
    if None not in (old, value := present.value_of(SYSCTLS)):
        _revert_settings(settings, old, new, value, loses_ipv6="mtu" in fields and before.link.mtu < IPV6_MIN_MTU)
        settings.revert_mode(dict(before.further.get(SYSCTLS, ())), dict(new))
    if "mtu" in fields and present.link.mtu < IPV6_MIN_MTU <= before.link.mtu:
        # With the larger MTU, they would be as for a new link.
        fields["ipv6"] = (False, before.link.ipv6)
        for setting in before.further.get(SYSCTLS, ()):
            if setting.name.startswith("ipv6.") and setting.value:
                settings.revert(Sysctl(setting.name, ""), setting)
    if settings.now:
        fields[SYSCTLS] = (tuple(settings.now), tuple(settings.back))
    return fields, stay


class _Settings(NamedTuple):
    """Settings that are changed back, as they are now and as they were, and a description of each that stays."""

    now: list[Sysctl]
    back: list[Sysctl]
    stay: list[str]

    def revert(self, value: Sysctl, before: Sysctl) -> None:
        self.now.append(value)
        self.back.append(before)

    def revert_mode(self, before: Mapping[str, str], new: Mapping[str, str]) -> None:
        """Change the way of generating addresses back, if the kernel has set it along with a secret."""
        mode = before.get(ADDR_GEN_MODE, "")
        if mode and ADDR_GEN_MODE not in new and STABLE_SECRET in dict(self.back):
            self.revert(Sysctl(ADDR_GEN_MODE, ""), Sysctl(ADDR_GEN_MODE, mode))


def _revert_settings(
    settings: _Settings,
    old: Iterable[Sysctl],
    new: Iterable[Sysctl],
    present: Sequence[Sysctl],
    *,
    loses_ipv6: bool,
) -> None:
    was, is_now = dict(old), dict(present)
    for setting in sysctls_target(present, new):
        name = setting.name
        value, before = Sysctl(name, is_now.get(name, "")), Sysctl(name, was.get(name, ""))
        if value == before or (loses_ipv6 and name.startswith("ipv6.")):
            continue
        if value != setting:
            settings.stay.append(f"{name} stays {value.shown or 'without a value'}, {_SET_SINCE}")
        elif not before.value:
            settings.stay.append(f"{name} stays {value.shown}, because it had no value before")
        else:
            settings.revert(value, before)


def _is_same_value(name: str, one: object, other: object) -> bool:
    """Return whether two values of a field mean the same: alternative names have the order in which they were added.

    A master may be meant by an alternative name.
    """
    if name == ALTNAMES and isinstance(one, tuple) and isinstance(other, tuple):
        return set(one) == set(other)
    if name == MASTER and isinstance(one, str) and isinstance(other, str):
        return is_master(one, other) or is_master(other, one)
    return one == other


def differs_from(address: Address, among: Mapping[Identity, Address]) -> bool:
    """Return whether an address is not among these, or only with other attributes."""
    other = among.get(address.identity)
    return other is None or not address.same(other)


def reverted_addresses(
    changes: Iterable[ChangeLink], before: Iterable[Address], after: Iterable[Address], now: Iterable[Address]
) -> tuple[Address, ...]:
    """Return the addresses before the steps of a change, with later changes by other programs (rule 3)."""
    was = {address.identity: address for address in before if not address.comes_again}
    became = {address.identity: address for address in after}
    is_now = {address.identity: address for address in now if not address.comes_again}
    given = {listed_identity(each) for change in changes for each in change.added}
    target: list[Address] = []
    for identity, address in was.items():
        present, then = is_now.get(identity), became.get(identity)
        if present is None and then is not None:
            continue  # removed by another program
        changed = present is not None and then is not None and not present.same(then)
        target.append(present if changed and present is not None else address)
    for identity, address in is_now.items():
        owned = identity in given and address.proto == ADDRESS_PROTO
        if identity not in was and not owned:
            target.append(address)
    return tuple(target)
