"""Names that differ by one letter are reported; numbered and lettered families are not."""

from __future__ import annotations

import random
import string
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.proportion import is_proportional
from vethlib.agent.config.similar import SimilarNames

ALIKE = [
    ("blue", "bleu"),  # swapped
    ("blue", "blie"),  # another letter
    ("client", "clients"),  # one too many
    ("prod", "prd"),  # one too few
    ("Blue", "blue"),
    ("blue_1", "blue-1"),
    ("blue1", "blue-1"),
    ("tenant12", "tenent12"),
    ("tenant12", "tenent7"),  # numbers are no difference, whatever they are
    ("ns-backend", "ns-bakcend"),
    ("größe1", "gröse1"),
]
APART = [
    ("veth1", "veth2"),
    ("veth1", "veth10"),
    ("n1", "n2"),
    ("ns12", "ns21"),
    ("host1", "host"),
    ("v1net2", "v2net1"),
    ("leaf-a", "leaf-b"),
    ("nodea", "nodeb"),
    ("port-rx", "port-tx"),
    ("eth0a", "eth0b"),
    ("a", "b"),
    ("red", "rod"),
    ("blue", "green"),
    ("blue", "blueish"),
    ("x" * 40, "x" * 39 + "y"),
]


def names(*added: str) -> SimilarNames:
    found = SimilarNames()
    for name in added:
        found.add(name)
    return found


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_a_typing_error_is_found_from_either_side(one: str, other: str) -> None:
    assert names(other).like(one) == [other]
    assert names(one).like(other) == [one]


@pytest.mark.parametrize(("one", "other"), APART)
def test_families_and_short_names_are_no_typing_errors(one: str, other: str) -> None:
    assert names(other).like(one) == []
    assert names(one).like(other) == []


def test_three_names_that_differ_in_one_place_are_a_family() -> None:
    assert names("hostx").like("hostm") == ["hostx"]
    assert names("hostx", "hostd").like("hostm") == []


def test_of_a_family_the_name_with_the_same_numbers_is_meant() -> None:
    assert names(*(f"blue{number}" for number in range(9))).like("bleu7") == ["blue7"]
    assert names("blue3").like("bleu7") == ["blue3"]


words = st.text("abAB1_-é", max_size=6)


@given(st.lists(words), st.lists(words), words)
def test_what_was_added_and_discarded_again_leaves_no_trace(kept: list[str], gone: list[str], asked: str) -> None:
    found = names(*kept, *gone)
    for name in gone:
        found.discard(name)
    assert found.like(asked) == names(*kept).like(asked)
    assert found.uses(asked) == names(*kept).uses(asked)
    for name in kept:
        found.discard(name)
    assert found.like(asked) == []
    assert not any((found._uses, found._shapes, +found._total))


def test_what_was_never_added_can_be_discarded() -> None:
    found = names("blue")
    assert not found.discard("bleu")
    assert not found.discard("blue2")
    assert found.like("bleu") == ["blue"]


@pytest.mark.parametrize("kind", ["numbered", "random", "of one beginning", "one letter apart", "one letter in front"])
def test_ten_thousand_names_cost_ten_thousand_times_what_one_does(kind: str) -> None:
    choice = random.Random(1).choice

    def work(count: int) -> None:
        made = {
            "numbered": [f"tenant-{number}" for number in range(count)],
            "random": ["".join(choice(string.ascii_lowercase) for _ in range(15)) for _ in range(count)],
            "of one beginning": [
                "tenant-" + "".join(choice(string.ascii_letters) for _ in range(9)) for _ in range(count)
            ],
            "one letter apart": [f"tena{chr(0x4E00 + number)}nt" for number in range(count)],
            "one letter in front": [f"{chr(0x4E00 + number)}tenant" for number in range(count)],
        }[kind]
        found = names(*made)
        for name in made:
            found.like(name)
            found.uses(name)

    assert is_proportional(work, 150)


def test_names_that_programs_make_take_little_memory() -> None:
    made = [f"cni-{random.Random(number).getrandbits(128):032x}" for number in range(2000)]
    tracemalloc.start()
    found = names(*made)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 4 << 20
    assert found.like(made[0]) == []
