"""From a URL to a store, and from a key to a name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.refusing import raises
from vethlib.agent.stores.etcd.editor import EtcdEditor
from vethlib.agent.stores.files.directory import DirectoryStore
from vethlib.agent.stores.files.editing import DirectoryEditor
from vethlib.agent.stores.keys import beginning_of, begins, key_of, name_for, name_of, place_of
from vethlib.agent.stores.memory import MemoryStore
from vethlib.agent.stores.opening import open_editor, open_statuses, open_store, shown
from vethlib.errors import InvalidValue

KINDS = "dir:PATH (a directory of *.json files) or etcd://HOST:PORT"

Opener: TypeAlias = Callable[..., object]


def test_a_url_names_a_store(tmp_path: Path) -> None:
    store = open_store(f"dir:{tmp_path}", label="vpp1", status_dir=tmp_path / "status")
    assert isinstance(store, DirectoryStore)
    store.close()
    store = open_store("memory:", label="vpp1")
    assert isinstance(store, MemoryStore)
    store.close()
    assert isinstance(open_editor(f"dir:{tmp_path}", label="vpp1"), DirectoryEditor)
    assert isinstance(open_editor("etcd://127.0.0.1:1", label="vpp1"), EtcdEditor)


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("/tmp", "write dir:/tmp for this directory"),
        ("dir:", f"must be {KINDS}"),
        ("memory:x", f"must be {KINDS}"),
        ("consul://x", f"must be {KINDS}"),
        ("etc://x", f"must be {KINDS}"),
        ("", f"must be {KINDS}"),
    ],
)
def test_any_other_is_refused_with_what_there_is(url: str, hint: str) -> None:
    openers: tuple[Opener, ...] = (open_store, open_editor, open_statuses)
    for opener in openers if url else openers[:2]:
        with pytest.raises(InvalidValue) as raised:
            opener(url, label="vpp1")
        assert (raised.value.field, raised.value.value, raised.value.hint) == ("--store", url, hint)


@pytest.mark.parametrize("url", ["etcd:h", "etcd://", "etcd:/h:1", "etcd://u@h", "etcd://h:0", "etcd://h?tls=2"])
def test_a_bad_url_of_an_etcd_is_refused_before_anything_is_opened(url: str) -> None:
    openers: tuple[Opener, ...] = (open_store, open_editor, open_statuses)
    for opener in openers:
        with pytest.raises(InvalidValue) as raised:
            opener(url, label="vpp1")
        assert (raised.value.field, raised.value.value) == ("--store", url)


def test_what_is_in_memory_cannot_be_edited_from_outside() -> None:
    with raises(InvalidValue, field="--store", value="memory:"):
        open_editor("memory:", label="vpp1")


def test_statuses_are_those_of_this_host_unless_an_etcd_is_named(tmp_path: Path) -> None:
    for url in ("", "dir:/etc/vethlib", "memory:"):
        assert open_statuses(url, label="vpp1").place == "/run/vethlib/vpp1/status"
    assert open_statuses("etcd://u:secret@h", label="vpp1").place == "etcd://u:…@h"
    assert open_statuses("etcd://h", label="vpp1", status_dir=str(tmp_path)).place == str(tmp_path)


def test_a_store_that_lacks_its_package_says_how_to_get_it() -> None:
    script = """
import sys
sys.modules["grpc"] = None
from vethlib.agent.stores.opening import open_editor, open_statuses, open_store
from vethlib.errors import VethError
for opener in (open_store, open_editor, open_statuses):
    try:
        opener("etcd://127.0.0.1:1", label="vpp1")
    except VethError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 3
    assert all(line.endswith("pip install 'vethlib[etcd]'") for line in done.stdout.splitlines())


def test_a_directory_needs_nothing_of_an_etcd() -> None:
    script = """
import sys
from vethlib.agent.stores.opening import open_editor, open_statuses, open_store
for opener in (open_editor, open_statuses, open_store):
    opener("dir:/nowhere", label="vpp1")
print("grpc" in sys.modules)
"""
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "False\n"
    )


def test_a_url_is_shown_without_the_password() -> None:
    assert shown("etcd://u:secret@h:1") == "etcd://u:…@h:1"
    assert shown("dir:/home/a:b@c") == "dir:/home/a:b@c"


def test_a_key_and_a_name_mean_the_same() -> None:
    key = "/vnf-agent/vpp1/linux/config/v1/interface/veth1"
    assert key_of("vpp1", "veth1") == key
    for read in (name_of, place_of, beginning_of):
        assert read(key, "vpp1") == read("veth1", "vpp1") == "veth1"


def test_a_key_of_another_label_is_refused() -> None:
    with raises(InvalidValue, field="KEY", value=key_of("vpp2", "veth1")):
        name_of(key_of("vpp2", "veth1"), "vpp1", "KEY")


def test_a_key_of_another_label_is_refused_wherever_keys_are_read() -> None:
    for read in (place_of, beginning_of):
        with raises(InvalidValue, value=key_of("vpp2", "veth1")):
            read(key_of("vpp2", "veth1"), "vpp1")


@pytest.mark.parametrize(
    ("key", "place"),
    [
        (key_of("vpp1", "a/b"), "key:a/b"),
        (key_of("vpp1", "a b"), "key:a b"),
        (key_of("vpp1", ""), "key:"),
        (key_of("vpp1", "a\udcff"), "key:a\\xff"),
        (key_of("vpp1", r"a\xff/"), r"key:a\\xff/"),
        ("key:a/b", "key:a/b"),
    ],
)
def test_a_key_that_no_interface_can_have_is_called_as_stores_tell_it(key: str, place: str) -> None:
    assert place_of(key, "vpp1") == place


@given(st.sets(st.binary(max_size=6) | st.text(r"\xf/ ", max_size=6).map(str.encode)))
@example({b"\xff/", rb"\xff/", rb"\\xff/", b"\\xff", b"\xff"})
def test_no_two_keys_are_told_as_one(ends: set[bytes]) -> None:
    assert len({name_for(end)[0] for end in ends}) == len(ends)


@pytest.mark.parametrize(
    ("name", "beginning", "does"),
    [
        ("veth1", "ve", True),
        ("veth1", "eth", False),
        ("key:a/b", "a/", True),
        ("key:a/b", "key:a", True),
        ("key:a/b", "ke", False),
        (r"key:a\\xff", r"a\x", True),
        (r"key:a\xff", r"a\x", False),
        (r"key:a\xff", "a\udcff", True),
    ],
)
def test_a_key_begins_as_it_is_written_or_as_it_is_told(name: str, beginning: str, does: bool) -> None:
    assert begins(name, beginning) is does


def test_the_beginning_of_a_key_is_that_of_a_name() -> None:
    assert beginning_of(key_of("vpp1", "ve"), "vpp1") == "ve"
    assert beginning_of(key_of("vpp1", "a/"), "vpp1") == "a/"
    with raises(InvalidValue, value="/vnf-agent/vpp1/linux/"):
        beginning_of("/vnf-agent/vpp1/linux/", "vpp1")


@pytest.mark.parametrize("key", ["/veth1", "a/b", "/vnf-agent/vpp1/linux/config/v1/interface/a/b", "/vnf-agent/vpp1/"])
def test_what_is_neither_is_refused(key: str) -> None:
    with raises(InvalidValue, field="KEY", value=key):
        name_of(key, "vpp1", "KEY")
