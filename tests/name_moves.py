"""How names and alternative names of links can move among interfaces, for plans and for the kernel.

An interface has the kernel name and the alternative names of its link: ``{"a": "eth0 x y"}``.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["IN_PLACE", "MOVES", "Names"]

Names = Mapping[str, str]

MOVES: dict[str, tuple[Names, Names]] = {
    "an alternative name moves": ({"a": "eth0 x", "b": "eth1"}, {"a": "eth0", "b": "eth1 x"}),
    "one of several moves": ({"a": "eth0 x y", "b": "eth1 z"}, {"a": "eth0 y", "b": "eth1 x z"}),
    "two are exchanged": ({"a": "eth0 x", "b": "eth1 y"}, {"a": "eth0 y", "b": "eth1 x"}),
    "three go round": (
        {"a": "eth0 x", "b": "eth1 y", "c": "eth2 z"},
        {"a": "eth0 y", "b": "eth1 z", "c": "eth2 x"},
    ),
    "each is passed on": (
        {"a": "eth0 x", "b": "eth1 y", "c": "eth2 z"},
        {"a": "eth0 w", "b": "eth1 x", "c": "eth2 y z"},
    ),
    "it moves to a new pair": ({"a": "eth0 x"}, {"a": "eth0", "b": "eth1 x"}),
    "a former name becomes an alternative one of another": ({"a": "eth0", "b": "eth1"}, {"a": "z", "b": "eth1 eth0"}),
    "two former names are exchanged as alternative ones": (
        {"a": "eth0", "b": "eth1"},
        {"a": "y eth1", "b": "z eth0"},
    ),
    "an alternative name becomes the name of another": ({"a": "eth0 x", "b": "eth1"}, {"a": "eth0", "b": "x"}),
    "each gets the alternative name of the other as its name": (
        {"a": "eth0 x", "b": "eth1 y"},
        {"a": "y", "b": "x"},
    ),
    "names and alternative names of two are exchanged": (
        {"a": "eth0 x", "b": "eth1 y"},
        {"a": "y eth1", "b": "x eth0"},
    ),
    "a former name becomes an alternative one, and the alternative one a name": (
        {"a": "eth0 x", "b": "eth1"},
        {"a": "z", "b": "x eth0"},
    ),
    "a link exchanges its name with its alternative one": ({"a": "eth0 x"}, {"a": "x eth0"}),
    "a link is renamed to its alternative name": ({"a": "eth0 x"}, {"a": "x"}),
    "a link is renamed to one of its alternative names": ({"a": "eth0 x y"}, {"a": "x y"}),
    "the name of a deleted link becomes an alternative one": ({"a": "eth0", "b": "eth1"}, {"a": "eth0 eth1"}),
    "the alternative name of a deleted link moves": ({"a": "eth0", "b": "eth1 x"}, {"a": "eth0 x"}),
}

IN_PLACE = {what: names for what, names in MOVES.items() if names[0].keys() == names[1].keys()}
"""The moves in which both interfaces exist before and after."""
