"""Arguments that cannot be paths, or identities of namespaces: an error that names the argument."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.refusing import raises
from vethlib import InvalidValue, Session, ns
from vethlib.agent import DirectoryStore, DockerResolver, Hooks, UnreadablePath, load
from vethlib.agent.stores.files.editing import DirectoryEditor
from vethlib.monitor import Monitor

NO_PATHS = ["odd\0name", "/odd\0name", "odd\ud800name", b"odd\0", 7]

PATHS: dict[str, Callable[[Session, Any], object]] = {
    "ns.names directory": lambda _, path: ns.names(path),
    "ns.remove directory": lambda _, path: ns.remove("blue", directory=path),
    "DirectoryStore path": lambda _, path: DirectoryStore(path),
    "DirectoryStore status_dir": lambda _, path: DirectoryStore("/", status_dir=path),
    "DirectoryEditor path": lambda _, path: DirectoryEditor(path),
    "Hooks status_dir": lambda _, path: Hooks([], status_dir=path),
    "Monitor status_dir": lambda session, path: Monitor(session, label="x", status_dir=path),
}


@pytest.mark.parametrize("path", NO_PATHS, ids=ascii)
@pytest.mark.parametrize("call", PATHS)
def test_what_can_be_no_path_is_refused(session: Session, call: str, path: Any) -> None:
    with raises(InvalidValue, field=call.split()[1], value=path):
        PATHS[call](session, path)


@pytest.mark.parametrize("identities", ["blue", [7], [(1, 2, 3)], 7])
def test_what_is_no_identity_of_a_namespace_is_refused(identities: Any) -> None:
    with raises(InvalidValue, field="identities", value=identities):
        ns.find(identities)


@pytest.mark.parametrize("hints", ["pid:1", [7], [None], 7])
def test_what_is_no_list_of_references_is_refused_as_hints(hints: Any) -> None:
    with raises(InvalidValue, field="hints"):
        ns.find([(1, 2)], hints)


@pytest.mark.parametrize("label", ["odd\0name", "odd\ud800name", 7])
def test_what_can_be_in_no_environment_is_refused_as_the_label_of_hooks(label: Any) -> None:
    with raises(InvalidValue, field="label"):
        Hooks([], label=label)


@pytest.mark.parametrize("url", [7, None, "unix:///odd\0name", b"odd", Path("odd")])
def test_what_can_be_no_address_of_a_container_engine_is_refused(url: Any) -> None:
    with pytest.raises(InvalidValue):
        DockerResolver(url)


def test_paths_to_load_may_be_bytes_but_must_be_paths() -> None:
    for path in ("odd\0name", b"odd\0name", "odd\ud800name"):
        with pytest.raises(UnreadablePath):
            load([path])  # type: ignore[list-item]
    for wrong in (7, None, ["a.json"]):
        with raises(InvalidValue, field="paths", value=wrong):
            load(["a.json", wrong])  # type: ignore[list-item]
    assert load([b"/dev/null"]).parsed != ()  # type: ignore[list-item]
