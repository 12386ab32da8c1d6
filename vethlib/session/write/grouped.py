"""Delete many links of one namespace with one unregistration.

The kernel waits for an RCU grace period per unregistration: 16 ms, for any number of links. So links that are deleted
together are put into a separate group, and the group is deleted with one message (rtnl_group_dellink). These rules make
this safe for all other links:

1. The caller names each link by its ifindex, having read it as a veth with the given name.
2. The group is a random number above 2³¹, which :func:`~vethlib.links.check_group` admits for no link, and which other
   tools do not use. No table is read to find a free number, because no dump is whole while links are being created and
   deleted all the time. Another program would have to guess the number within a millisecond.
3. Marks and deletion are one datagram, and so one system call, unless they are too many; an interruption between two
   datagrams restores the old groups.

Two things take time that grows with the number of other links, so that deleting n links takes time n²:

4. For each link that has an IPv4 address, the kernel walks all routes of the namespace (fib_table_flush,
   net/ipv4/fib_trie.c), but not if the address was removed before. So from `MANY` links on, their addresses are removed
   first. An interruption restores them, too; routes that other programs added through them are lost.
5. A mark on a link that is up and has IPv6 makes the kernel walk all IPv6 routes of the namespace (rt6_sync_up,
   net/ipv6/route.c). Links that were created together in a random group (``create_many(together=True)``) need no mark:
   if the links are exactly the members of that group, as a whole dump of all links has just shown, the group is deleted
   as it is. If they are more than half of the members, the others (veth links, too) are marked instead, and stay
   together in a new group. No other program knows the number, and ``ip`` refuses such numbers.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from socket import AF_INET
from typing import Final

from vethlib._nl.addr import delete_same, dump_addrs, index_of, parse_addr, restore_addr
from vethlib._nl.batch import UNSENT, Exchange, Outcome
from vethlib._nl.link import delete_group, dump_links, parse_link, set_group
from vethlib.session.core.namespaces import Namespaces, OpenNetns

__all__ = ["GONE", "GroupDeletion", "is_private", "random_group"]

MANY: Final = 256
"""The number of links from which removing their IPv4 addresses first takes less time than it saves."""

GONE: Final = (0, errno.ENODEV)


def random_group() -> int:
    """Return a group that cannot be given to a link, and that nobody else uses (rule 2)."""
    return 1 << 31 | int.from_bytes(os.urandom(4), "little") >> 1


def is_private(group: int) -> bool:
    """Return whether a group may be a :func:`random_group`."""
    return group >= 1 << 31


class GroupDeletion:
    """The deletion of links of `place`; `groups` has the link group of each, which is restored if it stays.

    If `marks_are_dear`, links that already form a group are not marked (rule 5). :meth:`run` has two handlers; the
    outer one is for an interruption of the inner one (see undo.py).
    """

    __slots__ = (
        "_addresses",
        "_deletion",
        "_groups",
        "_marks",
        "_marks_are_dear",
        "_namespaces",
        "_place",
        "_removals",
    )

    def __init__(
        self, namespaces: Namespaces, place: OpenNetns, groups: Mapping[int, int], *, marks_are_dear: bool
    ) -> None:
        self._namespaces = namespaces
        self._place = place
        self._groups = groups
        self._marks_are_dear = marks_are_dear
        self._addresses: list[bytes] = []
        self._removals: Exchange | None = None
        self._marks: tuple[Mapping[int, int], Exchange] | None = None  # ifindex → old group, and their requests first
        self._deletion: Exchange | None = None  # its last request

    def run(self) -> Outcome:
        """Delete the links, and return the outcome of the deletion; they are as before if it failed."""
        try:
            return self._run_or_put_back()
        except BaseException:
            self._put_back()
            raise

    def _run_or_put_back(self) -> Outcome:
        try:
            self._run()
        except BaseException:
            self._put_back()
            raise
        self._put_back()
        return self._outcome

    @property
    def _outcome(self) -> Outcome:
        return UNSENT if self._deletion is None else self._deletion.outcomes[-1]

    def _run(self) -> None:
        if len(self._groups) >= MANY:
            self._remove_addresses()
        if not (self._marks_are_dear and self._delete_as_created()):
            self._mark_and_delete()

    def _remove_addresses(self) -> None:
        """Remove the IPv4 addresses of the links, as far as possible; this only saves time."""
        groups = self._groups

        def wanted(body: bytes) -> bytes | None:
            return body if index_of(body) in groups else None

        outcome = self._namespaces.dump(self._place, dump_addrs(family=AF_INET), wanted, 1)
        if outcome.errno:
            return
        # Last first, so that secondary addresses are removed individually and not with their primary.
        self._addresses = [body for body in reversed(outcome.bodies) if body is not None]
        requests = [delete_same(body) for body in self._addresses]
        self._removals = self._namespaces.begin(self._place, requests)
        self._namespaces.run(self._place, self._removals)

    def _mark_and_delete(self) -> None:
        group = random_group()
        requests = [*(set_group(index, group) for index in self._groups), delete_group(group)]
        exchange = self._namespaces.begin(self._place, requests)
        self._marks, self._deletion = (self._groups, exchange), exchange
        self._namespaces.run(self._place, exchange)

    def _delete_as_created(self) -> bool:
        """Delete the group in which the links were created, if that is possible; return whether it was tried."""
        group, *others = set(self._groups.values())
        if others or not is_private(group):
            return False
        members = self._members(group)
        if not members.keys() >= self._groups.keys():
            return False
        rest = members.keys() - self._groups.keys()
        if len(rest) >= len(self._groups) or not all(members[index] == "veth" for index in rest):
            return False
        if not self._regrouped(rest, group):
            return False
        exchange = self._namespaces.begin(self._place, [delete_group(group)])
        self._deletion = exchange
        self._namespaces.run(self._place, exchange)
        return True

    def _members(self, group: int) -> dict[int, str]:
        """Return the links of a group, of any kind, with their kinds; none if the dump is torn."""

        def member(body: bytes) -> tuple[int, str] | None:
            message = parse_link(body)
            return (message.ifindex, message.kind) if message.group == group else None

        outcome = self._namespaces.dump(self._place, dump_links(), member, 1)
        return {} if outcome.errno else dict(filter(None, outcome.bodies))

    def _regrouped(self, rest: set[int], group: int) -> bool:
        """Put the other members into a new group, so that they stay; return whether all that still exist are in it."""
        if not rest:
            return True
        new = random_group()
        exchange = self._namespaces.begin(self._place, [set_group(index, new) for index in rest])
        self._marks = dict.fromkeys(rest, group), exchange
        self._namespaces.run(self._place, exchange)
        return all(outcome.errno in GONE for outcome in exchange.outcomes)

    def _put_back(self) -> None:
        """Restore groups and addresses, unless the links are deleted.

        A mark fails if its link is gone (ENODEV), so only the outcome of the deletion counts.
        """
        if self._outcome.errno in GONE:
            return
        requests: list[bytes] = []
        if self._marks is not None:
            groups, exchange = self._marks
            for (index, group), outcome in zip(groups.items(), exchange.outcomes, strict=False):
                if outcome is not UNSENT:
                    requests.append(set_group(index, group))
        if self._removals is not None:
            removed = zip(self._addresses, self._removals.outcomes, strict=True)
            requests += [restore_addr(parse_addr(body)) for body, outcome in removed if not outcome.errno][::-1]
        if requests:
            self._namespaces.exchange(self._place, requests)
