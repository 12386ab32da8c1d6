"""The addresses that a request is about, on links with thousands of them."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface

import pytest

from tests.proportion import is_proportional
from vethlib._nl.const import IFA_F_PERMANENT
from vethlib.addresses import Address, IPInterface
from vethlib.session.write.addressing import Goal

KERNEL_LL = 3  # IFAPROT_KERNEL_LL, which any owner of a namespace can give to an address


def six(number: int, length: int = 64) -> IPv6Interface:
    return IPv6Interface(((0x20010DB8 << 96) + number, length))


def four(number: int) -> IPv4Interface:
    return IPv4Interface(((10 << 24) + number, 32))


def there(interface: IPInterface, proto: int = 0, peer: str = "") -> Address:
    return Address(7, interface, IFA_F_PERMANENT, proto, peer=ip_address(peer) if peer else None)


def remove_all(number: int) -> None:
    present = [there(four(each)) for each in range(number)]
    goal = Goal.of(present, 7, 118, whole=None, add=(), remove=[each.interface for each in present], order=())
    assert len(goal.gone) == number


def add_those_that_conflict(number: int) -> None:
    """The link has these IPv6 addresses with another prefix length, which the kernel refuses."""
    present = [there(six(each, 128)) for each in range(number)]
    goal = Goal.of(present, 7, 118, whole=None, add=tuple(map(six, range(number))), remove=(), order=())
    steps, _ = goal.first(present)
    assert [step.fine for step in steps] == [()] * number


def set_all_beside_those_of_the_kernel(number: int) -> None:
    present = [there(six(number + each), KERNEL_LL) for each in range(number)]
    goal = Goal.of(present, 7, 118, whole=tuple(map(six, range(number))), add=(), remove=(), order=())
    steps, _ = goal.first(present)
    assert len(steps) == number, "those that the kernel has made stay"


@pytest.mark.parametrize("work", [remove_all, add_those_that_conflict, set_all_beside_those_of_the_kernel])
def test_a_request_about_many_addresses_takes_time_in_proportion(work: Callable[[int], None]) -> None:
    assert is_proportional(work, 500)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("10.0.0.1/24", ["10.0.0.1/24 None"]),
        ("10.0.0.2/32", ["10.0.0.2/32 10.0.0.8", "10.0.0.2/32 10.0.0.9"]),
        ("10.0.0.3/32", []),
        (there(ip_interface("10.0.0.2/32")), []),
        (there(ip_interface("10.0.0.2/32"), peer="10.0.0.9"), ["10.0.0.2/32 10.0.0.9"]),
    ],
)
def test_an_address_without_a_peer_is_meant_before_those_with_one(
    given: IPInterface | Address, meant: list[str]
) -> None:
    present = [there(ip_interface("10.0.0.1/24"))]
    for text, peer in [("10.0.0.1/24", "10.0.0.9"), ("10.0.0.2/32", "10.0.0.8"), ("10.0.0.2/32", "10.0.0.9")]:
        present.append(there(ip_interface(text), peer=peer))
    remove = [ip_interface(given) if isinstance(given, str) else given]
    goal = Goal.of(present, 7, 118, whole=None, add=(), remove=remove, order=())
    assert sorted(f"{interface} {peer}" for interface, peer in goal.gone) == meant
