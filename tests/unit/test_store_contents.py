"""The content of the files of a directory, key by key."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.live.applying import value
from vethlib.agent import Parsed, read
from vethlib.agent.stores.files.contents import Contents
from vethlib.agent.stores.protocol import Change


def parsed(file: str, *values: Any, text: str | None = None) -> list[Parsed]:
    return read(json.dumps(values[0] if len(values) == 1 else values) if text is None else text, f"conf/{file}")


def put(contents: Contents, file: str, *values: Any, text: str | None = None, **how: str) -> dict[str, Parsed | None]:
    contents.put(file, parsed(file, *values, text=text), **how)
    return settled(contents)


def settled(contents: Contents) -> dict[str, Parsed | None]:
    return {change.name: change.value for change in contents.settle()}


def problems(one: Parsed | None) -> list[str]:
    assert one is not None
    assert one.interface is None
    return [str(problem) for problem in one.problems]


A, B, C = value("a", "b"), value("b", "a"), value("c", "a")
BROKEN = '{"name": "a",'


def test_a_key_changes_when_its_value_does_and_only_then() -> None:
    contents = Contents()
    assert list(put(contents, "x.json", A, B)) == ["a", "b"]
    assert put(contents, "x.json", A, B) == {}
    assert put(contents, "x.json", B, A) == {}
    assert list(put(contents, "x.json", A, B | {"mtu": 1400})) == ["b"]
    assert put(contents, "x.json", A) == {"b": None}
    assert list(contents.values) == ["a"]


def test_a_warning_is_part_of_a_value() -> None:
    contents = Contents()
    put(contents, "x.json", A)
    odd = A | {"namespace": {"type": 2, "name": "ns1", "pid": 7}}
    (change,) = put(contents, "x.json", odd).values()
    assert change is not None
    assert change.warnings


def test_a_bad_element_is_refused_under_its_name_and_the_good_ones_count() -> None:
    contents = Contents()
    changes = put(contents, "x.json", A, B | {"mtu": 5}, C)
    (problem,) = problems(changes["b"])
    assert problem.startswith("mtu 5: ")
    assert [key for key, one in contents.values.items() if one.interface] == ["a", "c"]
    assert contents.complete


def test_the_same_problem_is_no_change_and_another_is() -> None:
    contents = Contents()
    put(contents, "x.json", A | {"mtu": 5})
    assert put(contents, "x.json", A | {"mtu": 5}) == {}
    assert list(put(contents, "x.json", A | {"mtu": 6})) == ["a"]


def test_an_undecodable_file_refuses_every_key_that_it_had() -> None:
    contents = Contents()
    put(contents, "x.json", A, B)
    changes = put(contents, "x.json", text=BROKEN)
    assert list(changes) == ["a", "b"]
    for key, one in changes.items():
        assert one is not None
        assert (one.name, one.source) == (key, "conf/x.json")
        assert "line 1, column 14: not JSON" in problems(one)[0]
    assert contents.complete
    assert list(put(contents, "x.json", text="")) == ["a", "b"]  # other words, the same keys
    assert put(contents, "x.json", A) == {"a": contents.values["a"], "b": None}


def test_of_an_undecodable_file_nobody_knows_the_stem_is_the_key() -> None:
    contents = Contents()
    (one,) = put(contents, "veth1.json", text=BROKEN).items()
    assert one[0] == "veth1"
    assert problems(one[1])
    assert not contents.complete
    assert put(contents, "veth1.json", value("veth7", "a")).keys() == {"veth1", "veth7"}
    assert list(contents.values) == ["veth7"]
    assert contents.complete


def test_where_the_stem_is_no_name_the_place_is_the_key() -> None:
    contents = Contents()
    assert list(put(contents, "my veth.json", text=BROKEN)) == ["file:my veth.json"]
    assert contents.values["file:my veth.json"].name == "file:my veth.json"
    assert not contents.complete


def test_a_guess_yields_to_who_has_the_name_and_the_problem_is_told_under_its_place() -> None:
    contents = Contents()
    put(contents, "a.json", text=BROKEN)
    changes = put(contents, "x.json", A)
    assert changes["a"] is not None
    assert changes["a"].interface is not None
    assert problems(changes["file:a.json"])
    contents.drop("x.json")
    changes = settled(contents)
    assert problems(changes["a"])
    assert changes["file:a.json"] is None


def test_what_is_lost_yields_too() -> None:
    contents = Contents()
    put(contents, "x.json", A, B)
    put(contents, "x.json", text=BROKEN)
    changes = put(contents, "y.json", A)
    assert list(changes) == ["a"]  # the problem is still reported under b
    assert changes["a"] is not None
    assert changes["a"].interface is not None
    changes = put(contents, "z.json", B)
    assert sorted(changes) == ["b", "file:x.json"]
    contents.drop("y.json")
    changes = settled(contents)
    assert changes["file:x.json"] is None
    assert problems(changes["a"])


def test_an_element_without_a_name_refuses_the_keys_that_went_missing_with_it() -> None:
    contents = Contents()
    put(contents, "x.json", A, B, C)
    changes = put(contents, "x.json", A, {"nam": "b"}, C)
    assert list(changes) == ["b"]
    assert [problem for problem in problems(changes["b"]) if problem.startswith("nam 'b': ")]
    assert contents.complete


def test_an_element_without_a_name_and_a_past_is_told_under_its_place() -> None:
    contents = Contents()
    assert list(put(contents, "x.json", A, {"nam": "b"}, 7, {"name": "no name"})) == [
        "a",
        "file:x.json[1]",
        "file:x.json[2]",
        "file:x.json[3]",
    ]
    assert not contents.complete


def test_a_name_that_cannot_be_one_is_no_key() -> None:
    contents = Contents()
    for bad in ("../../etc/passwd", "file:x.json", "", "x" * 64, " "):
        (key,) = put(contents, "veth1.json", A | {"name": bad})
        assert key == "veth1"
        assert put(contents, "veth1.json", A) != {}
        contents.drop("veth1.json")
        settled(contents)


def test_a_key_in_two_files_is_refused_with_both_places_until_one_goes() -> None:
    contents = Contents()
    put(contents, "x.json", A)
    changes = put(contents, "y.json", B, A | {"mtu": 1400})
    (problem,) = problems(changes["a"])
    assert "conf/x.json " in problem
    assert "conf/y.json[1]" in problem
    contents.drop("x.json")
    (one,) = settled(contents).values()
    assert one is not None
    assert one.interface is not None
    assert one.interface.mtu == 1400


def test_the_file_that_is_called_after_a_key_takes_precedence_over_all_others() -> None:
    contents = Contents()
    put(contents, "a.json", A)
    for number, stranger in enumerate(([A | {"mtu": 1400}], [A, A], [B, A], [A | {"mtu": 5}])):
        put(contents, f"{number}.json", *stranger)
        decided = contents.values["a"]
        assert decided.interface is not None
        assert (decided.interface.mtu, decided.source) == (0, "conf/a.json")
        assert len(decided.warnings) == 1
    contents.vanish("a.json")
    settled(contents)
    assert contents.values["a"].interface is None
    contents.drop("a.json")
    settled(contents)
    put(contents, "a.json", A)
    for number in range(4):
        contents.drop(f"{number}.json")
    settled(contents)
    assert contents.values["a"].warnings == ()


def test_a_key_twice_in_one_file_is_refused() -> None:
    contents = Contents()
    (problem,) = problems(put(contents, "x.json", A, A)["a"])
    assert all(f"conf/x.json[{number}]" in problem for number in (0, 1))


def test_a_file_with_two_names_speaks_once() -> None:
    contents = Contents()
    put(contents, "x.json", A, real="/conf/x.json")
    assert put(contents, "y.json", A, real="/conf/x.json") == {}
    contents.drop("x.json")
    assert settled(contents) == {}
    assert put(contents, "z.json", A, real="/conf/z.json").keys() == {"a"}


def test_a_vanished_file_still_counts_but_yields() -> None:
    contents = Contents()
    put(contents, "x.json", A, B)
    contents.vanish("x.json")
    assert settled(contents) == {}
    assert list(put(contents, "y.json", A)) == []
    assert list(put(contents, "z.json", B | {"mtu": 1400})) == ["b"]
    contents.drop("x.json")
    assert settled(contents) == {}
    assert sorted(contents.values) == ["a", "b"]


def test_a_renamed_file_takes_its_keys_along_though_it_cannot_be_decoded() -> None:
    contents = Contents()
    put(contents, "x.json", A)
    put(contents, "x.json", text=BROKEN)
    contents.vanish("x.json")
    put(contents, "y.json", text=BROKEN, formerly="x.json")
    contents.drop("x.json")
    settled(contents)
    assert list(contents.values) == ["a"]
    assert contents.complete


def test_another_directory_starts_anew_and_remembers_what_its_files_had() -> None:
    contents = Contents()
    put(contents, "x.json", A)
    put(contents, "y.json", B)
    contents.restart()
    assert contents.files() == []
    changes = put(contents, "x.json", text=BROKEN)
    assert problems(changes["a"])
    assert changes["b"] is None
    assert contents.complete


NAMES = ("a", "b", "c")
FILES = ("x.json", "y.json", "a.json")
elements = st.sampled_from([*NAMES, "", "no name"])
steps = st.tuples(
    st.sampled_from(["put", "break", "vanish", "drop"]),
    st.sampled_from(FILES),
    st.lists(elements, max_size=3),
)


@settings(deadline=None)
@given(st.lists(steps, max_size=12), st.booleans())
def test_whatever_happens_the_changes_lead_to_what_a_fresh_look_finds(
    steps: list[tuple[str, str, list[str]]], settle_each: bool
) -> None:
    contents = Contents()
    told: dict[str, Parsed] = {}
    good: dict[str, list[Parsed]] = {}  # the decodable content of the present files

    def follow(changes: list[Change]) -> None:
        for change in changes:
            if change.value is None:
                del told[change.name]
            else:
                told[change.name] = change.value

    for action, file, names in steps:
        if action == "put":
            good[file] = parsed(file, *[A | {"name": name} for name in names]) if names else []
            contents.put(file, good[file])
        elif action == "break":
            good.pop(file, None)
            contents.put(file, parsed(file, text=BROKEN))
        elif contents.has(file):
            good.pop(file, None)
            contents.vanish(file) if action == "vanish" else contents.drop(file)
        if settle_each:
            follow(contents.settle())
    follow(contents.settle())
    assert {key: bool(one.interface) for key, one in told.items()} == {
        key: bool(one.interface) for key, one in contents.values.items()
    }
    for name in NAMES:
        places = [one for some in good.values() for one in some if one.name == name]
        places = [one for one in good.get(f"{name}.json", ()) if one.name == name] or places  # which takes precedence
        if len(places) == 1:
            assert told[name].interface == places[0].interface
        elif places:
            assert told[name].interface is None
    for file in FILES:
        contents.drop(file)
    follow(contents.settle())
    assert told == {}
    assert contents.complete
