"""Values of a wrong type for any argument of a session or a value are refused with the name of the parameter."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from tests.witness import names
from vethlib import (
    BatchError,
    End,
    InvalidValue,
    Neighbour,
    NetnsNotFound,
    NewAddress,
    Route,
    Session,
    Veth,
    VethError,
    ns,
)

HUGE = 10**5000  # whose text Python refuses to make
# fmt: off
WRONG: list[Any] = [
    5, None, True, 1.5, b"x", "x", "", [], {}, [5], [None], [["x"]], [{}], [""], ["x"], {"x": 1}, {1: 2}, HUGE, [HUGE],
    (), object(), [object()], float("nan"), -1, [(1,)], [(1, 2)], [("a", "b", "c")], {"rp_filter": {}}, ["\0"], "\0",
    {"rp_filter": HUGE}, "\ud800",
    [{"dst": "10.0.0.0/8", 1: 2, "x": 3}], [{"ip": 5, "mac": 5, 1: 2, "x": 3}],
    [{"dst": ["x"]}], [{"dst": "default", "mtu": HUGE}], [{"dst": "default", HUGE: 1}], type,
]
# fmt: on


def wrong_values() -> list[Any]:
    """Return them with an iterator, which the first that takes it uses up."""
    return [*WRONG, iter([5])]


def refused(attempt: Callable[[], object]) -> None:
    """Check that an attempt succeeds, or raises an error of ours that can be printed and names the field."""
    raised: list[VethError] = []
    try:
        attempt()
    except VethError as error:
        raised.append(error)
    assert all(str(error) and getattr(error, "field", "any") for error in raised)


VALUES: list[tuple[Any, str, dict[str, Any]]] = [
    *((End, field, {"name": "q"}) for field in inspect.signature(End).parameters),
    *((Route, field, {"destination": "default"}) for field in inspect.signature(Route).parameters if field != "proto"),
    *((Neighbour, field, {"ip": "10.0.0.9", "mac": "02:00:00:00:00:09"}) for field in ("ip", "mac")),
    *((NewAddress, field, {"address": "10.0.0.1/24"}) for field in inspect.signature(NewAddress.__init__).parameters),
    *((Veth, field, {"a": End("x"), "b": End("y")}) for field in "ab"),
]


@pytest.mark.parametrize(("cls", "field", "given"), [each for each in VALUES if each[1] != "self"])
def test_a_value_is_created_from_anything_or_refuses_it(cls: Any, field: str, given: dict[str, Any]) -> None:
    for wrong in wrong_values():
        refused(lambda wrong=wrong: cls(**{**given, field: wrong}))  # type: ignore[misc]


GIVEN: dict[str, Any] = {
    "name": "k",
    "link": "k",
    "to": "blue",
    "index": 7,
    "veth": Veth(End("y"), End("z")),
    "veths": [],
}
CALLABLE = ("progress", "only_if", "before", "made", "cache")

METHODS = [
    (name, parameter.name)
    for name, method in inspect.getmembers(Session, inspect.isfunction)
    if not name.startswith("_") and name not in ("close", "borne", "socket")
    for parameter in inspect.signature(method).parameters.values()
    if parameter.name not in ("self", *CALLABLE) and parameter.kind is not parameter.VAR_KEYWORD
]


@pytest.mark.filterwarnings("ignore:move:DeprecationWarning")
@pytest.mark.parametrize(("method", "parameter"), METHODS)
def test_a_method_of_a_session_takes_anything_or_refuses_it(blue: str, method: str, parameter: str) -> None:
    with Session() as session:
        session.create(Veth(End("k"), End("k2", "blue")))
        needed = {
            each.name: GIVEN.get(each.name, [])
            for each in inspect.signature(getattr(session, method)).parameters.values()
            if each.default is each.empty and each.kind is not each.VAR_KEYWORD
        }
        for wrong in wrong_values():
            refused(lambda wrong=wrong: getattr(session, method)(**{**needed, parameter: wrong}))  # type: ignore[misc]
            if method in ("set", "move", "delete", "delete_many") and "k" not in names():
                for name, netns in (("k2", "blue"), ("k", "blue"), ("x", "")):
                    session.delete(name, netns, missing_ok=True)
                session.create(Veth(End("k"), End("k2", "blue")))


@pytest.mark.parametrize(
    ("field", "attempt"),
    [
        ("routes", lambda _: End("q", routes=[{"dst": "10.0.0.0/8", 1: 2, "x": 3}])),  # type: ignore[list-item]
        ("altnames", lambda _: End("q", altnames=[["x"]])),  # type: ignore[list-item]
        ("sysctls", lambda _: End("q", sysctls={"rp_filter": HUGE})),
        ("addresses", lambda _: End("q", addresses=5)),  # type: ignore[arg-type]
        ("addresses", lambda _: End("q", addresses=None)),  # type: ignore[arg-type]
        ("remove_addresses", lambda session: session.set("k", remove_addresses=5)),
        ("wait", lambda session: session.set("k", wait=HUGE)),
        ("netns", lambda session: session.ipv6_settings("k", HUGE)),
        ("items", lambda session: session.lookup_many(5)),
        ("refs", lambda session: session.survey(5)),
        ("veths", lambda session: session.create_many(5)),
        ("links", lambda session: session.dependents(5)),
        ("asked", lambda session: session.fields_many([("", 3, {"bogus": 1})])),
        ("asked", lambda session: session.fields_many([("", 3)])),
        ("sysctls", lambda session: session.fields_many([("", 3, {"sysctls": "rp_filter"})])),
        ("neighbours", lambda session: session.fields_many([("", 3, {"neighbours": 5})])),
        ("sysctls", lambda session: session.fields("k", sysctls="rp_filter")),
        ("routes", lambda session: session.remove_dependents("k", routes=["default"])),
    ],
)
def test_the_error_names_the_field(session: Session, field: str, attempt: Callable[[Session], object]) -> None:
    with pytest.raises(InvalidValue) as caught:
        attempt(session)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("value", "attempt"),
    [
        ("0.0.0.0", lambda _: Route("10.0.0.0/8", via="10.0.0.1", src="0.0.0.0")),
        ("0.0.0.0", lambda _: Route("10.0.0.0/8", via="0.0.0.0", src="10.0.0.1")),
        ("::", lambda _: Route("default", via="fd00::1", src="::")),
        ("b", lambda _: End("q", routes=[{"dst": "default", "b": 1, "a": 2, "c": 3}])),  # type: ignore[list-item]
        ("c", lambda _: End("q", neighbours=[{"ip": "10.0.0.9", "c": 1, "a": 2, "b": 3}])),  # type: ignore[list-item]
        ("c", lambda session: session.fields_many([("", 3, {"routes": (), "c": 1, "a": 2, "b": 3})])),
    ],
)
def test_the_error_has_the_value_that_is_wrong_and_the_first_of_several(
    session: Session, value: str, attempt: Callable[[Session], object]
) -> None:
    with pytest.raises(InvalidValue) as caught:
        attempt(session)
    assert caught.value.value == value


def test_none_is_a_field_that_is_not_given() -> None:
    fields: dict[str, Any] = dict.fromkeys(
        ("altnames", "routes", "neighbours", "sysctls", "master", "offload", "txqlen")
    )
    assert End("q", **fields) == End("q")
    assert End("q", up=False, **fields) == End("q", up=False)


@pytest.mark.parametrize("field", ["progress", "made", "before", "only_if"])
def test_what_is_no_function_is_refused_before_anything_is_created_or_deleted(session: Session, field: str) -> None:
    session.create(Veth(End("k"), End("l")))
    calls: list[Callable[..., object]] = [
        lambda **given: session.create_many([Veth(End("m"), End("n"))], **given),
        lambda **given: session.delete_many([("k", "")], **given),
        lambda **given: session.set("k", new_name="o", **given),
        lambda **given: session.remove_dependents("k", **given),
    ]
    takers = {"progress": calls[:2], "made": calls[:1], "before": calls[:1], "only_if": calls[1:]}[field]
    for call in takers:
        wrong: Any
        for wrong in ("x", 5, [], HUGE):
            with pytest.raises(InvalidValue) as caught:
                call(**{field: wrong})
            assert caught.value.field == field
            assert names() == {"k", "l"}


def test_a_link_is_not_moved_to_what_is_no_reference(session: Session) -> None:
    session.create(Veth(End("k"), End("l")))
    references: list[Any] = [5, HUGE, b"blue", ["blue"]]
    for wrong in references:
        with pytest.raises(InvalidValue) as caught:
            session.move("k", to=wrong)
        assert caught.value.field == "to"
    assert names() == {"k", "l"}


class Numbered:
    """An object with a number that no descriptor has."""

    def __init__(self, number: Any) -> None:
        self.number = number

    def fileno(self) -> Any:
        return self.number


def test_an_object_without_a_descriptor_is_no_namespace(session: Session) -> None:
    session.create(Veth(End("k"), End("l")))
    for number in (1 << 31, HUGE, -2, -HUGE, "7", None):
        reference = Numbered(number)
        for call in (session.links, ns.open_owned, ns.entered):
            with pytest.raises(NetnsNotFound):
                call(reference)
        with pytest.raises(BatchError) as caught:
            session.delete_many([("k", reference)], missing_ok=False)
        assert [type(error) for error in caught.value.exceptions] == [NetnsNotFound]
    assert names() == {"k", "l"}
