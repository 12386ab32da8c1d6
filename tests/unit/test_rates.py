"""Rates: computed from two samples of a link."""

from __future__ import annotations

from dataclasses import fields

from vethlib.links import Stats
from vethlib.rates import Meter, Rates, Sample, rates, total

HERE = (4, 4026531840)


def sample(at: float, index: int = 7, place: tuple[int, int] = HERE, cookie: int = 0, **counters: int) -> Sample:
    stats = Stats(**{field.name: counters.get(field.name, 0) for field in fields(Stats)})
    return Sample(place, index, at, stats, cookie)


def test_a_rate_is_what_a_counter_has_grown_by_in_a_second() -> None:
    found = rates(sample(10.0, rx_bytes=1000, tx_packets=4), sample(12.5, rx_bytes=6000, tx_packets=9, tx_dropped=5))
    assert found == Rates(2.5, 2000.0, 0.0, 0.0, 2.0, 0.0, 2.0, 0.0, 0.0)


def test_a_counter_that_wraps_goes_on() -> None:
    found = rates(sample(0.0, rx_bytes=2**64 - 10), sample(1.0, rx_bytes=20))
    assert found is not None
    assert found.rx_bytes == 30


def test_a_counter_that_was_set_back_makes_a_new_beginning() -> None:
    assert rates(sample(0.0, rx_bytes=10**12, tx_bytes=5), sample(1.0, rx_bytes=3, tx_bytes=9)) is None


def test_a_link_that_was_made_again_is_another_one() -> None:
    before = sample(0.0, rx_bytes=5)
    assert rates(before, sample(1.0, index=8, rx_bytes=50)) is None
    assert rates(before, sample(1.0, place=(4, 1), rx_bytes=50)) is None


def test_a_link_of_a_later_namespace_with_the_same_inode_number_is_another_one() -> None:
    assert rates(sample(0.0, cookie=3), sample(1.0, cookie=4, rx_bytes=50)) is None
    assert rates(sample(0.0, cookie=3), sample(1.0, cookie=3, rx_bytes=50)) is not None
    meter = Meter()
    meter.read([sample(0.0, cookie=3)])
    assert meter.read([sample(1.0, cookie=4), sample(1.0, cookie=3)])[0] is None


def test_no_time_between_two_samples_gives_no_rate() -> None:
    assert rates(sample(1.0), sample(1.0, rx_bytes=5)) is None


def test_a_total_sums_what_is_known() -> None:
    one = rates(sample(0.0), sample(2.0, rx_bytes=10, tx_dropped=4))
    other = rates(sample(0.0), sample(1.0, rx_bytes=7))
    assert total([one, None, other]) == Rates(2.0, 12.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0)
    assert total([None]) is None


def test_a_meter_knows_a_link_from_its_second_sample_on_and_forgets_those_that_are_gone() -> None:
    meter = Meter()
    assert meter.read([sample(0.0), sample(0.0, index=8)]) == [None, None]
    (found,) = meter.read([sample(1.0, rx_packets=3)])
    assert found is not None
    assert found.rx_packets == 3
    assert meter.read([sample(2.0, index=8)]) == [None]
