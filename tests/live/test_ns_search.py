"""A reference is found for each namespace that has one: home, a name, a mount, or a process."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.witness import ip
from vethlib import ns


@pytest.fixture
def foreign(home: ns.Netns) -> Iterator[ns.Netns]:
    """A namespace that only its descriptor keeps alive."""
    with ns.Netns.anonymous() as foreign:
        yield foreign


@pytest.fixture
def inside(foreign: ns.Netns) -> Iterator[int]:
    """A process in it."""
    with foreign.entered():
        process = subprocess.Popen(["sleep", "600"])
    yield process.pid
    process.kill()
    process.wait()


def test_home_is_the_empty_reference(home: ns.Netns) -> None:
    identity = ns.identity(home.fd)
    assert ns.find([identity]) == {identity: ""}
    assert ns.everywhere()[0] == ""


def test_a_named_namespace_is_found_by_its_name(home: ns.Netns) -> None:
    ip("netns", "add", "blue")
    with ns.Netns.open("blue") as blue:
        assert ns.find([blue.identity]) == {blue.identity: "netns:blue"}
        assert ns.everywhere().count("netns:blue") == 1


def test_a_namespace_of_a_process_is_found_by_it(foreign: ns.Netns, inside: int) -> None:
    assert ns.find([foreign.identity]) == {foreign.identity: f"pid:{inside}"}
    assert ns.find([foreign.identity], hints=[f"pid:{inside}"]) == {foreign.identity: f"pid:{inside}"}
    assert f"pid:{inside}" in ns.everywhere()


def test_a_hint_that_has_ended_does_no_harm(foreign: ns.Netns, inside: int) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    hints = ["netns:blue", f"pid:{gone.pid}"]
    assert ns.find([foreign.identity], hints) == {foreign.identity: f"pid:{inside}"}


@pytest.mark.parametrize("name", ["a b\\c", "a\rb", "a\x0b\x1fb", "a\u00a0b", "a\u2028b", "\udcff"])
def test_a_namespace_that_is_mounted_anywhere_is_found_by_the_path(
    foreign: ns.Netns, inside: int, tmp_path: Path, name: str
) -> None:
    place = tmp_path / name
    place.touch()
    subprocess.run(["mount", "--bind", f"/proc/{inside}/ns/net", place], check=True)
    try:
        assert ns.find([foreign.identity]) == {foreign.identity: f"path:{place}"}
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_namespace_without_a_reference_is_left_out(home: ns.Netns, foreign: ns.Netns) -> None:
    identity = ns.identity(home.fd)
    assert ns.find([foreign.identity, identity]) == {identity: ""}
    assert ns.find([]) == {}
