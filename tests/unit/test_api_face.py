"""The API as a new user meets it: through dir(), help(), its signatures, and errors for wrong arguments."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pydoc
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import vethlib
from vethlib import End, InvalidValue, Link, Netns, Pair, Veth, ns
from vethlib.agent import Interface, PacketPort, Plan, check_label
from vethlib.graph import Graph, dot, mermaid, svg
from vethlib.linkref import as_items, as_key, check_refs, locate
from vethlib.links import check_wait
from vethlib.monitor import HostEvent
from vethlib.topology import Layout, LiveWire

PROMISED = [
    importlib.import_module(name)
    for name in (
        "vethlib",
        "vethlib.ns",
        "vethlib.ifindex",
        "vethlib.agent",
        "vethlib.monitor",
        "vethlib.rates",
        "vethlib.graph",
        "vethlib.topology",
        "vethlib.pytest_netns",
    )
]


def test_every_module_that_makes_names_on_demand_lists_them() -> None:
    package = Path(vethlib.__file__).parent
    files = [path for path in package.rglob("*.py") if "\ndef __getattr__(" in path.read_text()]
    names = [".".join(path.relative_to(package.parent).with_suffix("").parts) for path in files]
    modules = [name.removesuffix(".__init__") for name in names]
    assert {"vethlib", "vethlib.agent", "vethlib.pytest_netns"} <= set(modules)
    # In a new interpreter, in which no attribute has been requested.
    script = (
        "import importlib, sys\n"
        "for module in map(importlib.import_module, sys.argv[1:]):\n"
        "    print(set(module.__all__) <= set(dir(module)))\n"
    )
    said = subprocess.run([sys.executable, "-c", script, *modules], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["True"] * len(modules)


def test_pydoc_shows_what_is_made_on_demand() -> None:
    for module in PROMISED:
        text = pydoc.plain(pydoc.render_doc(module))
        for name in module.__all__:
            assert name in text, f"{module.__name__}.{name}"


def test_the_version_is_listed() -> None:
    assert "__version__" in dir(vethlib)


def test_the_types_of_arguments_are_promised() -> None:
    assert {"LinkRef", "Neighbour", "NetnsRef", "NewAddress", "Route"} <= set(vethlib.__all__)


@pytest.mark.parametrize("module", PROMISED, ids=lambda module: module.__name__)
def test_help_of_everything_that_can_be_called_is_of_our_own_words(module: ModuleType) -> None:
    for name in module.__all__:
        value = getattr(module, name)
        if name == "Descriptor" or not callable(value) or "Alias" in type(value).__name__ or name in _ALIASES:
            continue  # an object of the standard library, or a union of types
        where = f"{module.__name__}.{name}"
        assert inspect.isclass(value) or inspect.isfunction(value) or name == "netns_session", where
        assert value.__doc__, where
        for member, method in _methods(value) if inspect.isclass(value) else ():
            assert inspect.getdoc(method), f"{where}.{member}"


_ALIASES = {"NetnsRef", "LinkRef", "Operation", "Resolver", "NetnsId", "LinkId", "What", "Mood"}


def _methods(cls: type) -> Iterator[tuple[str, Any]]:
    ours = [base for base in cls.__mro__ if base.__module__.startswith("vethlib.")]
    for name, value in {name: value for base in reversed(ours) for name, value in vars(base).items()}.items():
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, (property, classmethod))):
            yield name, value


def test_values_with_a_mapping_can_be_in_a_set() -> None:
    classes = [value for module in PROMISED for value in vars(module).values() if inspect.isclass(value)]
    classes += [getattr(module, name) for module in PROMISED for name in module.__all__]
    of_values = [cls for cls in classes if inspect.isclass(cls) and dataclasses.is_dataclass(cls)]
    values = {cls for cls in of_values if cls.__hash__ is not None}
    assert {HostEvent, Layout, Plan} <= values
    for cls in values - {End, Interface, LiveWire}:  # which turn it into a tuple, or have a hash of their own
        for field in dataclasses.fields(cls):
            is_hashed = field.compare if field.hash is None else field.hash
            assert not (is_hashed and re.search("Mapping|dict|list|Sequence", str(field.type))), (cls, field.name)
    assert len({HostEvent("state", "new", 1.0, state={"state": "PENDING"})}) == 1


# --- a link wherever a name is taken

NAMES_OF_OTHER_THINGS = {
    "End": "the name of a link that is to be made",
    "Interface": "a configuration, which has names of its own",
    "Namespace": "a configuration",
    "Mark": "an interface of the configuration",
    "Configurator.delete": "an interface of the configuration",
    "Configurator.refuse": "an interface of the configuration",
    "Configurator.status": "an interface of the configuration",
    "Configurator.interface": "an interface of the configuration",
    "Configurator.history": "an interface of the configuration",
    "Indexes": "interfaces of the configuration",
    "MemoryStore": "interfaces of the configuration",
    "read_one": "a configuration",
    "InvalidInterface": "an interface of the configuration",
    "Netns.create": "a namespace",
    "ns.remove": "a namespace",
    "NetnsFactory": "a namespace",
    "Node": "a node that is being made",
    "AddNetns": "a namespace",
    "RemoveNetns": "a namespace",
    "Attachment": "made by attach()",
    "WaitTimeout": "what an error is about",
    "Session.move(name)": "the name that the link has afterwards",
    "IfIndexCache.find": "what a session asks, by the identity of a namespace",
    "Address.is_plain": "the label of an address, which is compared with the name of its link",
    "Address.is_bare": "the label of an address, as well",
}
LINKS = ("name", "link", "links", "items", "host_if_name")


def _taking_names() -> Iterator[tuple[str, str, str]]:
    """Each public function and method with an argument that is a link by its name: where, which, its annotation."""
    for module in PROMISED:
        for name in module.__all__:
            value = getattr(module, name)
            here = [
                (
                    f"{module.__name__.removeprefix('vethlib.')}.{name}" if module.__name__ == "vethlib.ns" else name,
                    value,
                )
            ]
            if inspect.isclass(value):
                here = [(name, value.__init__)] if "__init__" in vars(value) else []
                here += [(f"{name}.{member}", method) for member, method in _methods(value)]
            for where, function in here:
                function = getattr(function, "__func__", function)
                if not inspect.isfunction(function) or _is_of_dataclass(value, function):
                    continue
                for argument in inspect.signature(function).parameters.values():
                    if argument.name in LINKS:
                        yield where, argument.name, str(argument.annotation)


def _is_of_dataclass(value: object, function: Any) -> bool:
    return function.__name__ == "__init__" and hasattr(value, "__dataclass_fields__")


def test_whatever_takes_the_name_of_a_link_takes_a_link() -> None:
    found = {}
    for where, argument, annotation in _taking_names():
        if NAMES_OF_OTHER_THINGS.keys().isdisjoint((where, where.split(".")[0], f"{where}({argument})")):
            found[where, argument] = annotation
    assert len(found) > 15
    without = [
        f"{where}({argument}: {annotation})"
        for (where, argument), annotation in found.items()
        if not re.search(r"\b(LinkRef|Item|DeleteItem|Link)\b", annotation)
    ]
    assert without == []


A_LINK = Link(7, "a", "ns1", "veth", "02:00:00:00:00:01", 1500, True, "up", (), 8, None, "", 0, 1)


def test_a_link_stands_for_its_name_its_namespace_and_its_ifindex() -> None:
    assert locate("a") == ("a", "", None, None)
    assert locate("a", "ns1") == ("a", "ns1", None, None)
    assert locate(A_LINK) == ("a", "ns1", 7, A_LINK)
    assert locate(A_LINK, "ns2") == ("a", "ns2", 7, None)
    assert locate(End("b", "ns3")) == ("b", "ns3", None, None)
    assert as_items([A_LINK, End("b"), ("c", "ns1"), ("d", "", 3)]) == [
        ("a", "ns1", 7, A_LINK),
        ("b", "", None, None),
        ("c", "ns1", None, None),
        ("d", "", 3, None),
    ]
    assert as_key(A_LINK) == ("ns1", 7, A_LINK)
    assert as_key(End("b", "ns3")) == ("ns3", "b", None)


# --- the wrong thing

END = End("a")
WRONG: list[tuple[str, Callable[[Any], object]]] = [
    ("a", lambda wrong: Veth(wrong, END)),
    ("b", lambda wrong: Veth(END, wrong)),
    ("owner", Netns),
    ("fd", lambda wrong: ns.call_in(wrong, list)),
    ("fd", lambda wrong: ns.map_in([0, wrong], list)),
    ("up", lambda wrong: End("a", up=wrong)),
    ("label", check_label),
    ("graph", svg),
    ("graph", dot),
    ("graph", mermaid),
    ("name", locate),
    ("items", lambda wrong: as_items([wrong])),
    ("links", lambda wrong: as_key(wrong)),
    ("refs", lambda wrong: check_refs([wrong] if not isinstance(wrong, str) else wrong)),
    ("wait", check_wait),
    ("session", lambda wrong: vethlib.IfIndexCache(wrong)),
    ("session", lambda wrong: importlib.import_module("vethlib.agent").Configurator(wrong)),
    ("session", lambda wrong: importlib.import_module("vethlib.monitor").Monitor(wrong)),
    ("session", lambda wrong: PacketPort("a", session=wrong)),
]


@pytest.mark.parametrize(
    ("field", "call", "wrong"),
    [
        pytest.param(field, call, wrong, id=f"{field}-{number}-{type(wrong).__name__}")
        for number, (field, call) in enumerate(WRONG)
        for wrong in ("c", object(), b"x", ["x"], None, Pair, float("nan"))
        if not (wrong == "c" and field in ("name", "label"))
    ],
)
def test_the_wrong_thing_is_refused_by_name_where_it_is_given(
    field: str, call: Callable[[Any], object], wrong: object
) -> None:
    with pytest.raises(InvalidValue) as caught:
        call(wrong)
    assert caught.value.field == field
    assert caught.value.hint


def test_a_graph_and_an_interface_are_taken() -> None:
    assert svg(Graph(())).startswith("<svg")
    assert Interface("a", peer_if_name="b").name == "a"
