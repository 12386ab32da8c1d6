"""Names that have moved: importing them from their former place warns, and returns the same object."""

from __future__ import annotations

from importlib import import_module

import pytest


@pytest.mark.parametrize(
    ("module", "name", "now"),
    [
        ("vethlib.agent.execute", "execute", "vethlib.agent.host"),
        ("vethlib.agent.observe", "observe", "vethlib.agent.host"),
        ("vethlib.agent.follow", "MemoryResolver", "vethlib.follow"),
        ("vethlib.agent.follow", "DockerResolver", "vethlib.follow.docker"),
    ],
)
def test_a_name_imported_from_its_former_module_warns_and_is_the_same(module: str, name: str, now: str) -> None:
    with pytest.warns(DeprecationWarning, match=now):
        found = getattr(import_module(module), name)
    assert found is getattr(import_module(now), name)


def test_a_former_module_has_no_other_names() -> None:
    with pytest.raises(AttributeError):
        import_module("vethlib.agent.execute").nothing  # noqa: B018


def test_the_former_name_of_a_namespace_identity_warns_and_is_the_same() -> None:
    agent = import_module("vethlib.agent")
    with pytest.warns(DeprecationWarning, match="NetnsId"):
        former = agent.Place
    assert former is agent.NetnsId
    assert "Place" not in agent.__all__


@pytest.mark.parametrize(("former", "now"), [("Borne", "Dependents"), ("Interface", "IPInterface")])
def test_the_former_name_of_a_type_warns_and_is_the_same(former: str, now: str) -> None:
    links = import_module("vethlib.links")
    with pytest.warns(DeprecationWarning, match=f"vethlib.links.{now}"):
        assert getattr(links, former) is getattr(links, now)
    assert former not in links.__all__
    assert not hasattr(links, "nothing")
