"""Editing the elements of a JSON text and leaving the rest as it was written."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vethlib.agent import Undecodable
from vethlib.agent.stores.files.listtext import edited, elements, read_elements

LIST = """\
\ufeff[
    {"name": "a",   "mtu": 1400 } ,

    {
        "name": "b"
    },
    {"name": "c"}  ]
"""


def test_every_element_is_found_where_it_stands() -> None:
    found = elements(LIST)
    assert [LIST[one.start : one.end] for one in found] == [
        '{"name": "a",   "mtu": 1400 }',
        '{\n        "name": "b"\n    }',
        '{"name": "c"}',
    ]
    assert [(one.number, one.value["name"]) for one in found] == [(0, "a"), (1, "b"), (2, "c")]


def test_a_text_without_a_list_is_one_element() -> None:
    (one,) = elements(' {"name": "a"} \n')
    assert (one.start, one.end, one.number) == (1, 14, None)
    assert edited(' {"name": "a"} \n', [one], {0: "{}"}) == " {} \n"
    assert edited(' {"name": "a"} \n', [one], {0: None}) == ""


@pytest.mark.parametrize("text", ["[]", " [ ] "])
def test_an_empty_list_has_none(text: str) -> None:
    assert elements(text) == []


@pytest.mark.parametrize(
    ("gone", "left"),
    [
        ([0], '\ufeff[\n    {\n        "name": "b"\n    },\n    {"name": "c"}  ]\n'),
        ([1], '\ufeff[\n    {"name": "a",   "mtu": 1400 },\n    {"name": "c"}  ]\n'),
        ([2], '\ufeff[\n    {"name": "a",   "mtu": 1400 } ,\n\n    {\n        "name": "b"\n    }  ]\n'),
        ([0, 2], '\ufeff[\n    {\n        "name": "b"\n    }  ]\n'),
        ([0, 1, 2], ""),
    ],
)
def test_an_element_goes_with_its_comma_and_the_others_stay_as_they_were(gone: list[int], left: str) -> None:
    assert edited(LIST, elements(LIST), dict.fromkeys(gone)) == left


def test_a_new_element_is_laid_out_like_the_old_one() -> None:
    new = '{\n  "name": "x"\n}'
    text = edited(LIST, elements(LIST), {0: new, 1: new})
    assert '[\n    {"name": "x"} ,\n' in text
    assert '\n    {\n      "name": "x"\n    },\n    {"name": "c"}  ]\n' in text


def test_what_is_no_json_is_refused_with_its_place() -> None:
    places = (
        (b'[{"name": "a"} 7]', "line 1, column 16"),
        (b'[{"name": "a"},]', "line 1, column 1[56]"),  # since Python 3.13 at the comma, before that behind it
        (b'{"name":\n "\xff"}', "line 2, column 3"),
    )
    for raw, where in places:
        with pytest.raises(Undecodable, match=where):
            read_elements(raw)
    assert read_elements('{"name": "\ufffd"}'.encode())[0] == '{"name": "\ufffd"}'


integers = st.integers(1 - 10**19, 10**20 - 1)  # those of more than 20 characters are read as floats
values = st.recursive(
    st.none() | st.booleans() | integers | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(values, max_size=6), st.sampled_from([None, 1, "\t"]), st.sets(st.integers(0, 5)), st.booleans())
def test_whatever_the_list_the_others_are_left_alone(
    many: list[object], indent: int | str | None, places: set[int], replaced: bool
) -> None:
    text = json.dumps(many, indent=indent, ensure_ascii=False)
    found = elements(text)
    assert [one.value for one in found] == many
    edits = {place: '{\n  "new": 1\n}' if replaced else None for place in places if place < len(many)}
    after = edited(text, found, edits)
    if replaced:
        assert json.loads(after or "[]") == [{"new": 1} if at in edits else one for at, one in enumerate(many)]
    else:
        assert json.loads(after or "[]") == [one for at, one in enumerate(many) if at not in edits]
