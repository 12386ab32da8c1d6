"""From a URL to a store, and from a key to a name."""

from __future__ import annotations

from pathlib import Path

import pytest

from vethlib.agent.stores.directory import DirectoryStore
from vethlib.agent.stores.editing import DirectoryEditor
from vethlib.agent.stores.keys import key_of, name_of
from vethlib.agent.stores.memory import MemoryStore
from vethlib.agent.stores.opening import open_editor, open_store
from vethlib.errors import InvalidValue


def test_a_url_names_a_store(tmp_path: Path) -> None:
    store = open_store(f"dir:{tmp_path}", status_dir=tmp_path / "status")
    assert isinstance(store, DirectoryStore)
    store.close()
    store = open_store("memory:")
    assert isinstance(store, MemoryStore)
    store.close()
    assert isinstance(open_editor(f"dir:{tmp_path}"), DirectoryEditor)


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("etcd://127.0.0.1:2379", "etcd is not supported yet: give dir:PATH"),
        ("/tmp", "for this directory write dir:/tmp"),
        ("dir:", "give dir:PATH, a directory of *.json files, or memory:"),
        ("memory:x", "give dir:PATH, a directory of *.json files, or memory:"),
        ("consul://x", "give dir:PATH, a directory of *.json files, or memory:"),
        ("", "give dir:PATH, a directory of *.json files, or memory:"),
    ],
)
def test_any_other_is_refused_with_what_there_is(url: str, hint: str) -> None:
    for opener in (open_store, open_editor):
        with pytest.raises(InvalidValue) as raised:
            opener(url)
        assert (raised.value.field, raised.value.value, raised.value.hint) == ("--store", url, hint)


def test_what_is_in_memory_cannot_be_edited_from_outside() -> None:
    with pytest.raises(InvalidValue, match="within one process"):
        open_editor("memory:")


def test_a_key_and_a_name_mean_the_same() -> None:
    key = "/vnf-agent/vpp1/linux/config/v1/interface/veth1"
    assert key_of("vpp1", "veth1") == key
    assert name_of(key, "vpp1") == name_of("veth1", "vpp1") == "veth1"


def test_a_key_of_another_label_is_refused() -> None:
    with pytest.raises(InvalidValue, match="the key is of label vpp2, not of vpp1"):
        name_of(key_of("vpp2", "veth1"), "vpp1", "KEY")


@pytest.mark.parametrize("key", ["/veth1", "a/b", "/vnf-agent/vpp1/linux/config/v1/interface/a/b", "/vnf-agent/vpp1/"])
def test_what_is_neither_is_refused(key: str) -> None:
    with pytest.raises(InvalidValue, match="write a name, or /vnf-agent/vpp1/linux/config/v1/interface/NAME"):
        name_of(key, "vpp1", "KEY")
