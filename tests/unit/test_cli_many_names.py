"""Commands that are given thousands of names."""

from __future__ import annotations

from tests.proportion import is_proportional
from vethlib.cli.arguments.hints import none_such
from vethlib.cli.commands.desired.status import _Selection


def test_a_selection_has_names_and_patterns() -> None:
    known = {"veth1", "veth2", "uplink"}
    which = _Selection({"veth1", "up*", "veth9", "w?n"}, set(), set())
    assert {name for name in known if which.fits(name)} == {"veth1", "uplink"}
    assert which.missing(known) == ["veth9", "w?n"]
    every = _Selection(set(), set(), set())
    assert all(map(every.fits, known))
    assert every.missing(known) == []


def test_a_name_with_wildcards_of_an_existing_interface_is_that_name_too() -> None:
    which = _Selection({"a[1]"}, set(), set())
    assert which.fits("a[1]")
    assert which.fits("a1")
    assert which.missing({"a[1]"}) == which.missing({"a1"}) == []


def test_many_names_are_selected_in_proportional_time() -> None:
    def work(number: int) -> None:
        which = _Selection({f"veth{each}" for each in range(0, 2 * number, 2)}, set(), set())
        known = {f"veth{each}" for each in range(number)}
        assert sum(map(which.fits, known)) == (number + 1) // 2
        assert len(which.missing(known)) == number // 2

    assert is_proportional(work, 500)


def test_similar_names_are_suggested_for_the_first_few_that_are_missing() -> None:
    known = [f"veth{number}" for number in range(100)]
    messages = dict(none_such("interface", [f"vteh{number}" for number in range(100)], known))
    assert list(messages) == [f"vteh{number}" for number in range(100)]
    suggestions = [message for message in messages.values() if "did you mean" in message]
    assert 1 < len(suggestions) < 50
    assert messages["vteh1"].endswith("; did you mean veth1?")
