"""Getting from one list of addresses to another, given what the kernel does with each message."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_interface

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.proportion import is_proportional
from tests.unit.kernel_addresses import Held, KernelAddresses
from vethlib._nl.const import IFA_F_SECONDARY
from vethlib.address_order import added, in_order, in_the_way, listed, rearrangement, removed
from vethlib.addresses import Address

PLAIN = [
    "10.0.0.1/24",
    "10.0.0.2/24",
    "10.0.0.3/24",
    "10.1.0.1/24",
    "10.1.0.2/24",
    "10.0.0.1/32",
    "169.254.1.1/16",
    "fd00::1/64",
    "fd00::2/64",
    "fd00::3/64",
    "fd00::1/128",
    "fe80::1/64",
    "fe80::2/64",
]
PEERS = ["10.0.0.1 peer 10.0.0.9/32", "10.0.0.2 peer 10.1.0.9/24", "10.0.0.1 peer 10.0.0.9/24", "fd00::3 peer ::9/64"]
LINK_SCOPE = ["10.0.0.8/24", "10.3.0.1/24"]
ALL = [*PLAIN, *PEERS, *LINK_SCOPE]

often = settings(max_examples=60, deadline=None)


def kernel_with(texts: Iterable[str], gone: Iterable[str], promote: bool) -> KernelAddresses:
    kernel = KernelAddresses(promote)
    for text in texts:
        kernel.give(held(text))
    for text in gone:
        kernel.take(text)
    return kernel


def held(text: str) -> Held:
    return Held(text, scope=253 if text in LINK_SCOPE else 0)


def address(one: Held) -> Address:
    far = None if one.far == one.local else ip_address(one.far)
    flags = 0x80 | (0x01 if one.secondary else 0)
    message = bytes([10 if one.is_ipv6 else 2, one.length, 0, one.scope])
    return Address(1, ip_interface(one.plain), flags, 0, message, far)


def addresses(kernel: KernelAddresses) -> list[Address]:
    return [address(one) for one in kernel]


def texts_of(found: Iterable[Address]) -> list[str]:
    return [str(one) for one in found]


def without_clashes(texts: list[str]) -> list[str]:
    """Return those of the desired addresses that a link can have at the same time."""
    kernel = KernelAddresses()
    return [text for text in texts if not kernel.give(held(text))]


kernels = st.builds(
    kernel_with, st.lists(st.sampled_from(ALL), max_size=10), st.lists(st.sampled_from(ALL), max_size=4), st.booleans()
)
wishes = st.lists(st.sampled_from(PLAIN), max_size=6, unique=True).map(without_clashes)


def carry_out(kernel: KernelAddresses, target: list[Address]) -> int:
    """Send the messages that lead to `target`, as often as it takes."""
    for number in range(4):
        take, give = rearrangement(addresses(kernel), target)
        if not take and not give:
            return number
        for one in take:
            kernel.take(str(one))
        for one in give:
            kernel.give(held(str(one)))
    raise AssertionError(f"{kernel.texts()} instead of {texts_of(target)}")


@often
@given(wishes)
def test_a_list_is_what_the_kernel_makes_of_the_addresses(wanted: list[str]) -> None:
    kernel = KernelAddresses()
    for text in [one for one in wanted if ":" not in one] + [one for one in reversed(wanted) if ":" in one]:
        assert kernel.give(held(text)) == ""
    assert texts_of(listed(address(held(text)) for text in wanted)) == kernel.texts()


@often
@given(kernels, wishes)
def test_any_list_becomes_any_other(kernel: KernelAddresses, wanted: list[str]) -> None:
    target = listed(address(held(text)) for text in wanted)
    assert carry_out(kernel, target) <= 2
    assert kernel.texts() == texts_of(target)
    assert [one.secondary for one in kernel] == [one.secondary for one in target]


@often
@given(kernels, st.lists(st.sampled_from(ALL), max_size=4), wishes, wishes)
def test_what_is_added_and_removed_leaves_the_rest_and_an_order_is_kept(
    kernel: KernelAddresses, gone: list[str], new: list[str], order: list[str]
) -> None:
    there = addresses(kernel)
    leaving = [one for one in there if str(one) in gone]
    staying = removed(there, leaving)
    coming = [address(held(text)) for text in new]
    coming = [one for one in coming if not in_the_way(staying, [one])]
    target = in_order(added(staying, coming), [ip_interface(text) for text in order])
    assert sorted(texts_of(target)) == sorted([text for text in texts_of(there) if text not in gone] + texts_of(coming))
    assert texts_of(in_order(target, [ip_interface(text) for text in order])) == texts_of(target)
    assert carry_out(kernel, target) <= 2
    assert kernel.texts() == texts_of(target)


@often
@given(kernels, wishes)
def test_addresses_of_nobody_elses_order_come_in_that_order(kernel: KernelAddresses, order: list[str]) -> None:
    """As far as they are the only ones: where others are primary, ours may have to follow them."""
    wanted = [ip_interface(text) for text in order]
    there = [one for one in addresses(kernel) if one.peer is None and one.interface in wanted]
    ours = listed(there)
    target = in_order(ours, wanted)
    best = listed(sorted(ours, key=lambda one: wanted.index(one.interface)))
    assert texts_of(target) == texts_of(best)


@often
@given(kernels, st.sampled_from(PLAIN))
def test_what_is_in_the_way_of_an_address_is_what_the_kernel_refuses_it_for(kernel: KernelAddresses, text: str) -> None:
    there = addresses(kernel)
    obstacles = in_the_way(there, [address(held(text))])
    refused = kernel.give(held(text))
    assert bool(obstacles) == bool(refused)
    for one in obstacles:
        kernel.take(str(one))
    if obstacles:
        assert kernel.give(held(text)) == ""


def test_others_stay_where_they_are_when_an_order_is_repaired() -> None:
    kernel = kernel_with(["10.9.0.1/24", "10.0.0.2/24", "10.0.0.9/24", "10.0.0.1/24", "fe80::9/64"], [], False)
    target = in_order(addresses(kernel), [ip_interface("10.0.0.1/24"), ip_interface("10.0.0.2/24")])
    take, give = rearrangement(addresses(kernel), target)
    assert texts_of(target) == ["10.9.0.1/24", "10.0.0.9/24", "10.0.0.1/24", "10.0.0.2/24", "fe80::9/64"]
    assert "10.9.0.1/24" not in texts_of([*take, *give])


def test_nothing_is_taken_where_everything_is_right() -> None:
    kernel = kernel_with(ALL, [], False)
    there = addresses(kernel)
    assert rearrangement(there, there) == ([], [])
    assert in_order(there, []) == there


# --- as many addresses as a tenant likes


def many(count: int, kind: str) -> list[Address]:
    """The addresses of a link: IPv4 ones of one subnet, or of as many, or IPv6 ones, half of them of a link's scope."""
    if kind == "secondary":
        texts = [f"10.{n >> 8}.{n & 255}.1/8" for n in range(count)]
    elif kind == "primary":
        texts = [f"10.{n >> 8}.{n & 255}.1/24" for n in range(count)]
    else:
        texts = [f"{'fd00' if n % 2 else 'fe80'}::{n:x}/64" for n in range(1, count + 1)]
    return [
        Address(
            index=1,
            interface=ip_interface(text),
            flags=IFA_F_SECONDARY if kind == "secondary" and number else 0,
            proto=0,
        )
        for number, text in enumerate(texts)
    ]


@pytest.mark.parametrize("kind", ["secondary", "primary", "of IPv6"])
@pytest.mark.parametrize(
    "work",
    [
        lambda there: removed(there, there[:1]),
        lambda there: removed(there, there[::2]),
        listed,
        lambda there: in_order(there, [there[2].interface, there[0].interface]),
        lambda there: in_order(there, [one.interface for one in reversed(there)]),
        lambda there: rearrangement(there, there[::-1]),
        lambda there: rearrangement(there, removed(there, there[:1])),
    ],
    ids=["remove the first", "remove every other", "list", "swap two", "reverse", "rearrange", "replace the first"],
)
def test_very_many_addresses_take_time_in_proportion_to_their_number(
    work: Callable[[list[Address]], object], kind: str
) -> None:
    lists = {count: many(count, kind) for count in (250, 2000)}
    assert is_proportional(lambda count: work(lists[count]), 250)
