"""Values behave like frozen dataclasses with slots, without the module that makes those."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
from typing import Any, ClassVar

import pytest

from vethlib import Address, End, Link, Pair, Stats, Veth
from vethlib._values import KW_ONLY, Value, aside, replace
from vethlib.links import Dependents
from vethlib.ns import Reference


class Ours(Value):
    """A value with every kind of field."""

    first: int
    second: str = "b"
    _: KW_ONLY
    third: tuple[int, ...] = ()
    hidden: bytes = aside(default=b"")

    def __post_init__(self) -> None:
        if self.third == (0,):
            object.__setattr__(self, "third", (1,))


class Theirs:
    """The same, as a dataclass; it has the name of the other, which is shown."""

    @dataclasses.dataclass(frozen=True, slots=True)
    class Ours:
        first: int
        second: str = "b"
        _: dataclasses.KW_ONLY
        third: tuple[int, ...] = ()
        hidden: bytes = dataclasses.field(default=b"", repr=False, compare=False)

        def __post_init__(self) -> None:
            if self.third == (0,):
                object.__setattr__(self, "third", (1,))


def both(*given: Any, **named: Any) -> tuple[Any, Any]:
    return Ours(*given, **named), Theirs.Ours(*given, **named)


@pytest.mark.parametrize(("given", "named"), [((1,), {}), ((1, "x"), {"third": (2,)}), ((1,), {"third": (0,)})])
def test_fields_and_defaults_are_those_of_a_dataclass(given: tuple[Any, ...], named: dict[str, Any]) -> None:
    ours, theirs = both(*given, **named)
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
    assert dataclasses.astuple(ours) == dataclasses.astuple(theirs)
    assert repr(ours) == repr(theirs).replace("Theirs.", "")
    assert hash(ours) == hash(theirs)


@pytest.mark.parametrize(
    ("given", "named"), [((), {}), ((1, "x", (2,)), {}), ((1,), {"nope": 2}), ((1,), {"first": 2})]
)
def test_arguments_that_a_dataclass_refuses_are_refused(given: tuple[Any, ...], named: dict[str, Any]) -> None:
    for cls in (Ours, Theirs.Ours):
        with pytest.raises(TypeError):
            cls(*given, **named)


def test_the_signature_and_the_pattern_are_those_of_a_dataclass() -> None:
    assert inspect.signature(Ours) == inspect.signature(Theirs.Ours)
    assert Ours.__match_args__ == Theirs.Ours.__match_args__
    match Ours(1):
        case Ours(first, second):
            assert (first, second) == (1, "b")


def test_the_fields_are_described_as_those_of_a_dataclass() -> None:
    def described(cls: Any) -> list[tuple[object, ...]]:
        return [(f.name, f.type, f.default, f.repr, f.compare, f.kw_only, f.init) for f in dataclasses.fields(cls)]

    assert described(Ours) == described(Theirs.Ours)
    assert dataclasses.is_dataclass(Ours(1))


def test_values_of_one_class_are_compared_by_their_compared_fields() -> None:
    assert Ours(1) == Ours(1, hidden=b"x")
    assert hash(Ours(1)) == hash(Ours(1, hidden=b"x"))
    assert Ours(1) != Ours(2)
    assert Ours(1) != Theirs.Ours(1)
    assert Ours(1) != (1, "b", ())


def test_a_copy_with_other_fields_is_checked_again() -> None:
    for copied in (dataclasses.replace(Ours(1), third=(0,)), replace(Ours(1), third=(0,))):
        assert copied == Ours(1, third=(1,))
    with pytest.raises(TypeError):
        replace(Ours(1), nope=2)


def test_a_value_cannot_be_changed() -> None:
    value = Ours(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.first = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del value.first
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.other = 2  # type: ignore[attr-defined]
    assert value == Ours(1)
    assert not hasattr(value, "__dict__")


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_value_is_pickled_with_all_its_fields(protocol: int) -> None:
    value = pickle.loads(pickle.dumps(Ours(1, third=(3,), hidden=b"x"), protocol))
    assert (value, value.hidden) == (Ours(1, third=(3,)), b"x")


def test_a_value_is_copied_with_all_its_fields() -> None:
    for copied in (copy.copy(Ours(1, hidden=b"x")), copy.deepcopy(Ours(1, hidden=b"x"))):
        assert (copied, copied.hidden) == (Ours(1), b"x")


def test_a_class_of_others_can_add_methods_to_a_value() -> None:
    class Mine(Ours):
        def twice(self) -> int:
            return 2 * self.first

    assert Mine(2).twice() == 4
    assert Mine(2) != Ours(2)
    assert dataclasses.replace(Mine(2), first=3).twice() == 6


def test_a_class_of_others_can_add_fields_as_to_a_dataclass() -> None:
    class Mine(Ours):
        kind: ClassVar[str] = "k"
        second: str = "B"
        fourth: int = 4
        _: KW_ONLY
        fifth: int = 5

    @dataclasses.dataclass(frozen=True, slots=True)
    class Other(Theirs.Ours):
        kind: ClassVar[str] = "k"
        second: str = "B"
        fourth: int = 4
        _: dataclasses.KW_ONLY
        fifth: int = 5

    mine = Mine(0, "x", 6, third=(0,), hidden=b"h", fifth=7)
    assert dataclasses.asdict(mine) == dataclasses.asdict(Other(0, "x", 6, third=(0,), hidden=b"h", fifth=7))
    assert dataclasses.astuple(Mine(1)) == dataclasses.astuple(Other(1))
    assert (mine.third, Mine.kind) == ((1,), "k")
    assert inspect.signature(Mine) == inspect.signature(Other)
    assert list(Mine.__match_args__) == ["first", "second", "fourth"]
    assert dataclasses.replace(mine, first=2).fourth == 6
    assert (hash(copy.copy(mine)), copy.deepcopy(mine)) == (hash(mine), mine)
    assert Mine(1) == Mine(1, hidden=b"x") != Mine(1, fifth=0)
    assert not hasattr(mine, "__dict__")
    with pytest.raises(TypeError, match="fourth"):

        class Wrong(Ours):
            fourth: int  # type: ignore[misc]


def test_a_class_of_others_can_have_its_own_way_to_be_created() -> None:
    class Mine(Ours):
        kind: ClassVar[str] = "k"
        fourth: int = 0

        def __init__(self, first: int) -> None:
            super().__init__(first, third=(0,))
            object.__setattr__(self, "fourth", 2 * first)

    assert (Mine(2).third, Mine(2).fourth, copy.deepcopy(Mine(2))) == ((1,), 4, Mine(2))


@pytest.mark.parametrize("cls", [Address, Dependents, End, Link, Pair, Reference, Stats, Veth])
def test_each_public_value_has_a_signature_with_its_fields(cls: type[Value]) -> None:
    assert list(inspect.signature(cls).parameters) == [field.name for field in dataclasses.fields(cls)]


def test_importing_the_library_does_not_import_dataclasses() -> None:
    script = "import vethlib, sys; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert {"dataclasses", "inspect", "copy"} & set(modules) == set()


def test_a_class_is_made_complete_by_whatever_needs_it_first() -> None:
    """Its ``__init__`` is compiled when a value is created, also of a derived class, or when it is accessed."""

    class Point(Value):
        x: int
        y: int = 2

        def __post_init__(self) -> None:
            seen.append(self.x)

    class Place(Point):
        pass

    class Other(Value):
        x: int

    seen: list[int] = []
    assert Place(1) == Place(x=1, y=2)
    assert (Point(3), seen) == (Point(3, 2), [1, 1, 3, 3])
    assert [*inspect.signature(Other).parameters] == ["x"]
    with pytest.raises(TypeError, match="x"):
        Other()  # type: ignore[call-arg]
