"""Which namespaces send too many events."""

from __future__ import annotations

from tests.proportion import is_proportional
from vethlib.ifindex.noise import NOISY, Noise


def test_a_namespace_is_too_noisy_and_sooner_if_its_queue_has_lost_events() -> None:
    noise = Noise()
    for nsid, number in [(1, NOISY - 1), (2, NOISY), (3, NOISY // 10), (4, NOISY // 10 - 1)]:
        noise.add(nsid, number)
    assert set(noise.loudest({3, 4, 5})) == {2, 3}
    assert noise.loudest({1, 4}) == [], "counting begins anew"


def test_events_that_the_caller_has_caused_do_not_count() -> None:
    noise = Noise()
    noise.add(1, NOISY)
    noise.excuse(1)
    assert noise.loudest({1}) == []
    noise.add(1, NOISY - 1)
    assert noise.loudest(set()) == []
    noise.add(1, 1)
    assert noise.loudest(set()) == [1]


def test_asking_after_each_event_takes_no_longer_if_many_namespaces_have_events() -> None:
    def work(number: int) -> None:
        noise = Noise()
        for nsid in range(number):
            noise.add(nsid, 1)
            noise.loudest(set())

    assert is_proportional(work, 1000)
