"""A directory as an operator edits it."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.capabilities import dropped
from tests.live.applying import interface, value
from tests.refusing import raises
from tests.stores import changed, is_readable, snapshot, write
from vethlib._files import Replacement
from vethlib.agent import Interface, load, to_dict
from vethlib.agent.config.jsontext import decode
from vethlib.agent.stores.files import editing
from vethlib.agent.stores.files.directory import DirectoryStore
from vethlib.agent.stores.files.editing import DirectoryEditor
from vethlib.agent.stores.protocol import Edit, Editor, StoreError
from vethlib.errors import InvalidValue

A, B, C = interface("a", "b"), interface("b", "a"), interface("c", "a", mtu=1400)

HAND_WRITTEN = """\
[
    {"name": "a",  "veth": {"peer_if_name": "b"}, "enabled": true},
    { "name": "veth1",
      "veth": {"peer_if_name": "x"} },
    {
        "name": "veth10",
        "veth": {"peer_if_name": "y"}
    }
]
"""


@pytest.fixture
def editor(path: Path) -> DirectoryEditor:
    return DirectoryEditor(path)


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """Let this process open only about fifty descriptors: those that are open may have higher numbers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (50 + len(os.listdir("/proc/self/fd")), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def interfaces(path: Path) -> dict[str, Interface]:
    configuration = load([path])
    assert configuration.invalid == ()
    return configuration.interfaces


def test_a_new_interface_gets_a_file_of_its_name(path: Path, editor: DirectoryEditor) -> None:
    assert editor.put(A, B) == [Edit("add", "a", f"{path}/a.json"), Edit("add", "b", f"{path}/b.json")]
    assert interfaces(path) == {"a": A, "b": B}
    assert (path / "a.json").read_text() == json.dumps(to_dict(A), indent=2) + "\n"
    assert sorted(os.listdir(path)) == ["a.json", "b.json"]


def test_a_file_is_readable_for_the_agent_whatever_the_umask(path: Path, editor: DirectoryEditor) -> None:
    old = os.umask(0o077)
    try:
        editor.put(A)
    finally:
        os.umask(old)
    assert (path / "a.json").stat().st_mode & 0o777 == 0o644


def test_an_interface_stays_in_the_file_that_has_it_and_the_file_keeps_its_mode(
    path: Path, editor: DirectoryEditor
) -> None:
    file = write(path / "left.json", to_dict(C))
    file.chmod(0o640)
    new = interface("c", "a", mtu=1300)
    assert editor.put(new) == [Edit("change", "c", f"{path}/left.json")]
    assert interfaces(path) == {"c": new}
    assert os.listdir(path) == ["left.json"]
    assert file.stat().st_mode & 0o777 == 0o640


def test_of_a_list_only_the_element_is_written(path: Path, editor: DirectoryEditor) -> None:
    file = path / "list.json"
    file.write_text(HAND_WRITTEN)
    assert editor.put(interface("veth10", "z"), interface("a", "c")) == [
        Edit("change", "veth10", f"{file}[2]"),
        Edit("change", "a", f"{file}[0]"),
    ]
    text = file.read_text()
    assert text.splitlines()[1] == '    {"name": "a", "enabled": true, "veth": {"peer_if_name": "c"}},'
    assert text.splitlines()[2:4] == HAND_WRITTEN.splitlines()[2:4]
    assert text.splitlines()[4:6] == ["    {", '      "name": "veth10",']
    assert interfaces(path)["veth10"].peer_if_name == "z"


ODD = '{"name": "a",\n\t"description":\n "\\ud800 [\\n{ é",\n "x": [1.50, {\n},\n [\n{\n"y": 1e999, "y": 2}\n]\n]\n}'


@pytest.mark.parametrize(
    "before",
    [
        '[{"name": "a"}, {"name": "b"}]\n',
        '[\n  {\n    "name": "a"\n  },\n  {"name": "b"}\n]\n',
        '{"name": "a"}\n',
        "",
    ],
    ids=["one line", "several lines", "single", "new"],
)
def test_what_is_put_unchecked_is_stored_as_it_was_given(path: Path, editor: DirectoryEditor, before: str) -> None:
    if before:
        (path / "all.json").write_text(before)
    assert [edit.name for edit in editor.put_text({"a": ODD})] == ["a"]
    stored = {one.name: one for one in editor.stored()}
    assert all(one.problem is None for one in stored.values())
    assert "".join(stored["a"].text.split()) == "".join(ODD.split())
    assert decode(stored["a"].text) == decode(ODD)
    assert editor.put_text({"a": ODD}) == []


def test_what_is_stored_just_so_is_left_alone(path: Path, editor: DirectoryEditor) -> None:
    file = path / "list.json"
    file.write_text(HAND_WRITTEN)
    before = file.stat()
    assert editor.put(A) == []
    now = file.stat()
    assert (now.st_ino, now.st_mtime_ns, now.st_ctime_ns) == (before.st_ino, before.st_mtime_ns, before.st_ctime_ns)
    assert file.read_text() == HAND_WRITTEN


def test_exactly_the_names_that_are_given_are_deleted(path: Path, editor: DirectoryEditor) -> None:
    file = path / "list.json"
    file.write_text(HAND_WRITTEN)
    editor.put(interface("veth11", "x"))
    assert editor.delete("veth1", "nobody", "veth1") == [Edit("delete", "veth1", f"{file}[1]")]
    assert list(interfaces(path)) == ["a", "veth10", "veth11"]
    assert file.read_text().splitlines()[:2] == HAND_WRITTEN.splitlines()[:2]


def test_a_file_goes_with_its_last_element(path: Path, editor: DirectoryEditor) -> None:
    (path / "list.json").write_text(HAND_WRITTEN)
    editor.put(B)
    editor.delete("veth10", "b", "a", "veth1")
    assert os.listdir(path) == []


def test_the_directory_is_made_by_a_put_and_by_nothing_else(tmp_path: Path) -> None:
    missing = tmp_path / "x" / "y"
    editor: Editor = DirectoryEditor(missing)
    for read in (editor.values, editor.stored, lambda: editor.delete("a")):
        with raises(StoreError, path=str(missing), errno=errno.ENOENT):
            read()
    assert not missing.parent.exists()
    assert editor.put(A, B) == [
        Edit("add", "a", f"{missing}/a.json", made=str(missing)),
        Edit("add", "b", f"{missing}/b.json"),
    ]
    assert interfaces(missing) == {"a": A, "b": B}


def test_an_interface_that_stands_in_two_places_is_not_put_into_a_third(path: Path, editor: DirectoryEditor) -> None:
    for file in ("one", "two"):
        write(path / f"{file}.json", to_dict(A))
    with raises(InvalidValue, field="name", value="a") as raised:
        editor.put(B, interface("a", "c"))
    assert all(f"{path}/{file}.json" in raised.value.hint for file in ("one", "two"))
    assert sorted(os.listdir(path)) == ["one.json", "two.json"]  # nor anything else
    assert [edit.source for edit in editor.delete("a")] == [f"{path}/one.json", f"{path}/two.json"]
    assert os.listdir(path) == []


def test_a_broken_file_of_that_name_is_replaced_or_removed(path: Path, editor: DirectoryEditor) -> None:
    for broken in (b'{"name": "a",', b"", b'{"name": "\xff"}'):
        (path / "a.json").write_bytes(broken)
        assert editor.put(A) == [Edit("change", "a", f"{path}/a.json")]
        assert interfaces(path) == {"a": A}
        (path / "a.json").write_bytes(broken)
        assert editor.delete("a") == [Edit("delete", "a", f"{path}/a.json")]
        assert os.listdir(path) == []


def test_a_broken_list_of_that_name_is_not_for_it_may_hold_others(path: Path, editor: DirectoryEditor) -> None:
    (path / "a.json").write_text(' [{"name": "x"},')
    for edit in (lambda: editor.put(A), lambda: editor.delete("a")):
        with raises(InvalidValue, field="name", value="a"):
            edit()
    assert (path / "a.json").read_text() == ' [{"name": "x"},'


def test_a_file_of_that_name_that_holds_others_is_left_to_them(path: Path, editor: DirectoryEditor) -> None:
    write(path / "a.json", to_dict(B))
    (path / "c.json").mkdir()
    assert [edit.source for edit in editor.put(A, C)] == [f"{path}/a%2.json", f"{path}/c%2.json"]
    assert interfaces(path) == {"a": A, "b": B, "c": C}
    assert editor.put(A, B, C) == []


def test_a_name_that_begins_with_a_dot_is_not_hidden(path: Path, editor: DirectoryEditor) -> None:
    dotted = interface(".a", "b")
    editor.put(dotted)
    assert os.listdir(path) == ["%2Ea.json"]
    assert interfaces(path) == {".a": dotted}
    assert editor.put(dotted) == []
    editor.delete(".a")
    assert os.listdir(path) == []


def test_links_stay_links_and_their_target_is_written(path: Path, tmp_path: Path, editor: DirectoryEditor) -> None:
    target = write(tmp_path / "target", to_dict(A))
    for link in ("a.json", "b.json"):
        (path / link).symlink_to(target)
    editor.put(interface("a", "c"))
    assert (path / "a.json").is_symlink()
    assert (path / "b.json").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["conf", "target"]
    assert interfaces(path)["a"].peer_if_name == "c"
    editor.delete("a")
    assert os.listdir(path) == []
    assert target.exists()


@pytest.mark.parametrize("links", [("a.json",), ("z.json",), ("a.json", "z.json")])
def test_a_deleted_file_goes_with_all_its_names(path: Path, editor: DirectoryEditor, links: tuple[str, ...]) -> None:
    write(path / "m.json", to_dict(A))
    for link in links:
        (path / link).symlink_to("m.json")
    store = DirectoryStore(path)
    (told,) = store.read()
    assert list(told.values) == ["a"]  # type: ignore[union-attr]
    first = min(*links, "m.json")
    assert editor.delete("a") == [Edit("delete", "a", f"{path}/{first}")]
    assert os.listdir(path) == []
    assert editor.values() == {}
    assert changed(store) == {"a": None}
    store.close()


@pytest.mark.parametrize("others", [("a.json", "m.json"), ("a.json",), ("z.json",)])
def test_a_broken_file_is_found_by_its_own_name_whatever_links_lead_to_it(
    path: Path, editor: DirectoryEditor, others: tuple[str, ...]
) -> None:
    named = interface("b", "a")
    for link in others:
        (path / link).symlink_to("b.json")
    (path / "b.json").write_text("{")
    first = min(*others, "b.json")
    assert editor.put(named) == [Edit("change", "b", f"{path}/{first}")]
    assert sorted(os.listdir(path)) == sorted((*others, "b.json"))
    assert interfaces(path) == {"b": named}
    (path / "b.json").write_text("{")
    assert editor.delete("b") == [Edit("delete", "b", f"{path}/{first}")]
    assert os.listdir(path) == []


@pytest.mark.parametrize("link", ["a", "z"])
def test_a_broken_file_is_not_that_of_an_interface_after_which_a_link_to_it_is_called(
    path: Path, editor: DirectoryEditor, link: str
) -> None:
    broken = '{"name": "m",, "enabled": true}'
    (path / "m.json").write_text(broken)
    (path / f"{link}.json").symlink_to("m.json")
    named = interface(link, "m")
    assert editor.delete(link) == []
    assert editor.put(named) == [Edit("add", link, f"{path}/{link}%2.json")]
    assert editor.delete(link) == [Edit("delete", link, f"{path}/{link}%2.json")]
    assert editor.put_text({link: json.dumps(to_dict(named))}) == [Edit("add", link, f"{path}/{link}%2.json")]
    assert sorted(os.listdir(path)) == sorted(("m.json", f"{link}.json", f"{link}%2.json"))
    assert (path / "m.json").read_text() == broken


def test_a_broken_file_elsewhere_is_that_of_the_only_link_to_it(
    path: Path, tmp_path: Path, editor: DirectoryEditor
) -> None:
    (tmp_path / "target").write_text("{")
    (path / "a.json").symlink_to(tmp_path / "target")
    assert editor.put(A) == [Edit("change", "a", f"{path}/a.json")]
    assert interfaces(path) == {"a": A}
    (tmp_path / "target").write_text("{")
    assert editor.delete("a") == [Edit("delete", "a", f"{path}/a.json")]
    assert os.listdir(path) == []
    assert (tmp_path / "target").read_text() == "{"


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_broken_file_elsewhere_with_several_links_may_be_that_of_each(
    path: Path, tmp_path: Path, editor: DirectoryEditor, name: str
) -> None:
    (tmp_path / "target").write_text("{")
    for link in ("a.json", "b.json"):
        (path / link).symlink_to(tmp_path / "target")
    for edit in (lambda: editor.put(interface(name, "c")), lambda: editor.delete(name)):
        with raises(InvalidValue, field="name", value=name) as raised:
            edit()
        assert f"{path}/a.json may contain it and others" in raised.value.hint
    assert sorted(os.listdir(path)) == ["a.json", "b.json"]
    assert (tmp_path / "target").read_text() == "{"


def test_values_are_what_an_agent_is_told(path: Path, editor: DirectoryEditor) -> None:
    (path / "list.json").write_text(HAND_WRITTEN)
    write(path / "twin.json", to_dict(A))
    write(path / "bad.json", value("b", "a", mtu=5))
    (path / "broken.json").write_text("{")
    (path / "nowhere.json").symlink_to("nothing")
    (path / "again.json").symlink_to("list.json")
    (path / "sub.json").mkdir()
    store = DirectoryStore(path)
    (told,) = store.read()
    store.close()
    values = editor.values()
    assert list(values) == list(told.values) == ["a", "veth1", "veth10", "b", "broken", "nowhere"]  # type: ignore[union-attr]
    for key, one in values.items():
        other = told.values[key]  # type: ignore[union-attr]
        assert (one.interface, one.source, list(map(str, one.problems))) == (
            other.interface,
            other.source,
            list(map(str, other.problems)),
        )


def test_what_is_stored_is_told_as_it_is_written(path: Path, editor: DirectoryEditor) -> None:
    (path / "list.json").write_text(HAND_WRITTEN)
    (path / "odd.json").write_text('[7, {"nam": "x"}]')
    (path / "broken.json").write_text("{")
    stored = editor.stored()
    assert [(one.name, one.source.removeprefix(f"{path}/"), one.problem is None) for one in stored] == [
        ("", "broken.json", False),
        ("a", "list.json[0]", True),
        ("veth1", "list.json[1]", True),
        ("veth10", "list.json[2]", True),
        ("", "odd.json[0]", True),
        ("", "odd.json[1]", True),
    ]
    assert stored[1].text == '{"name": "a",  "veth": {"peer_if_name": "b"}, "enabled": true}'


def test_any_object_with_a_name_can_be_put_as_text(path: Path, editor: DirectoryEditor) -> None:
    text = '{"name": "tap1",\n  "tap": {"version": 2}}'
    assert editor.put_text({"tap1": text}) == [Edit("add", "tap1", f"{path}/tap1.json")]
    assert (path / "tap1.json").read_text() == f"{text}\n"
    assert editor.put_text({"tap1": text}) == []
    assert [edit.op for edit in editor.put_text({"tap1": text.replace("2", "3")})] == ["change"]
    for name, wrong in (("x", text), ("tap1", "{}"), ("tap1", "7"), ("a/b", '{"name": "a/b"}'), ("tap1", "{")):
        with pytest.raises(InvalidValue):
            editor.put_text({name: wrong})
    assert os.listdir(path) == ["tap1.json"]


def _put_many(path: Path, names: list[str]) -> None:
    for name in names:
        DirectoryEditor(path).put(interface(name, "changed"))


def test_two_who_edit_one_file_do_not_undo_each_others_edits(path: Path) -> None:
    names = [f"veth{number}" for number in range(40)]
    write(path / "list.json", *[value(name, "x") for name in names])
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_put_many, args=(path, names[number::2])) for number in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert {one.peer_if_name for one in interfaces(path).values()} == {"changed"}
    assert os.listdir(path) == ["list.json"]


def test_an_edit_waits_for_the_one_before_and_follows_a_directory_that_was_replaced(
    path: Path, tmp_path: Path, editor: DirectoryEditor
) -> None:
    waiting = threading.Thread(target=editor.put, args=(A,))
    with editor._locked():
        waiting.start()
        waiting.join(0.2)
        assert not [name for name in os.listdir(path) if name.endswith(".json")]
        path.rename(tmp_path / "old")
        path.mkdir()
    waiting.join(30)
    assert (os.listdir(tmp_path / "old"), os.listdir(path)) == ([], ["a.json"])


def test_an_agent_that_reads_meanwhile_sees_one_change_each(path: Path, editor: DirectoryEditor) -> None:
    (path / "list.json").write_text(HAND_WRITTEN)
    store = DirectoryStore(path)
    snapshot(store)
    editor.put(B, interface("a", "c"))
    assert is_readable(store)
    assert changed(store).keys() == {"a", "b"}
    editor.delete("veth1")
    assert is_readable(store)
    assert changed(store) == {"veth1": None}
    editor.delete("b")
    assert changed(store) == {"b": None}
    store.close()


@pytest.mark.parametrize("step", ["write", "flush"])
def test_what_fails_before_the_first_rename_leaves_everything_as_it_was(
    path: Path, editor: DirectoryEditor, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    (path / "list.json").write_text(HAND_WRITTEN)
    done: list[object] = []
    work = getattr(Replacement, step)

    def fail(*args: object, **how: object) -> None:
        work(*args, **how)
        done.append(args)
        if len(done) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Replacement, step, fail)
    with raises(StoreError, path=f"{path}/b.json", errno=errno.ENOSPC):
        editor.put(interface("a", "c"), B)
    assert os.listdir(path) == ["list.json"]
    assert (path / "list.json").read_text() == HAND_WRITTEN


def test_everything_is_flushed_before_it_is_renamed(
    path: Path, editor: DirectoryEditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    rename, fsync = os.replace, os.fsync

    def watched_rename(source: str, target: str, **at: int) -> None:
        calls.append(f"rename {os.path.basename(target)}")
        rename(source, target, **at)

    def watched_fsync(file: int) -> None:
        calls.append(f"flush {'directory' if os.path.isdir(f'/proc/self/fd/{file}') else 'file'}")
        fsync(file)

    monkeypatch.setattr(os, "replace", watched_rename)
    monkeypatch.setattr(os, "fsync", watched_fsync)
    editor.put(A, B)
    assert calls == ["flush file", "flush file", "rename a.json", "rename b.json", "flush directory"]


@pytest.mark.parametrize(("number", "is_written"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_a_file_system_that_cannot_be_flushed_is_no_failure(
    path: Path, editor: DirectoryEditor, monkeypatch: pytest.MonkeyPatch, number: int, is_written: bool
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    if is_written:
        editor.put(A)
    else:
        with raises(StoreError, errno=number):
            editor.put(A)
    assert os.listdir(path) == (["a.json"] if is_written else [])


def test_a_directory_that_may_not_be_written_is_an_error_that_names_the_file(
    path: Path, editor: DirectoryEditor
) -> None:
    editor.put(A)
    path.chmod(0o500)
    with dropped():
        for edit, file in ((lambda: editor.put(B), "b.json"), (lambda: editor.delete("a"), "a.json")):
            with raises(StoreError, errno=errno.EACCES) as raised:
                edit()
            assert f"{path}/{file}" in str(raised.value)
        unmakeable = DirectoryEditor(path / "sub")
        with raises(StoreError, errno=errno.EACCES):
            unmakeable.put(A)
    path.chmod(0o700)


def test_an_unreadable_file_of_that_name_is_not_replaced(path: Path, editor: DirectoryEditor) -> None:
    file = write(path / "a.json", to_dict(A))
    file.chmod(0)
    with dropped(), raises(InvalidValue, field="name", value="a"):
        editor.put(A)
    file.chmod(0o600)


@pytest.mark.parametrize("behind", ["", "links"])
@pytest.mark.parametrize("edit", ["put", "put_text", "delete"])
def test_an_edit_of_many_files_takes_few_descriptors(
    path: Path, editor: DirectoryEditor, edit: str, behind: str, few_descriptors: None
) -> None:
    new = [interface(f"v{number}", f"v{number ^ 1}", mtu=1400) for number in range(200)]
    if behind or edit == "delete":
        for number in range(200):
            (path.parent / f"v{number}").write_text(json.dumps([value(f"v{number}", "p"), value(f"x{number}", "p")]))
            place = path / f"v{number}.json"
            place.symlink_to(path.parent / f"v{number}") if behind else (path.parent / f"v{number}").rename(place)
    if edit == "put":
        editor.put(*new)
    elif edit == "put_text":
        editor.put_text({one.name: json.dumps(to_dict(one)) for one in new})
    else:
        editor.delete(*(one.name for one in new))
    stored = interfaces(path)
    assert {one.name: stored.get(one.name) for one in new} == {
        one.name: None if edit == "delete" else one for one in new
    }
    assert all(place.is_symlink() for place in path.iterdir()) == bool(behind)


@pytest.mark.parametrize("edit", ["put", "put_text", "delete"])
def test_the_work_for_a_name_that_is_not_stored_does_not_depend_on_how_many_files_there_are(
    path: Path, editor: DirectoryEditor, edit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = 0
    file_name = editing._file_name

    def counted(*args: Any) -> str:
        nonlocal named
        named += 1
        return file_name(*args)

    new = [interface(f"v{number}", f"v{number ^ 1}") for number in range(20)]
    edits: dict[str, Callable[[], list[Edit]]] = {
        "put": lambda: editor.put(*new),
        "put_text": lambda: editor.put_text({one.name: json.dumps(to_dict(one)) for one in new}),
        "delete": lambda: editor.delete(*(one.name for one in new)),
    }
    monkeypatch.setattr(editing, "_file_name", counted)
    work = []
    for stored in (20, 40):
        for number in range(stored):
            write(path / f"old{number}.json", value(f"old{number}", "p"))
        named = 0
        assert len(edits[edit]()) == (0 if edit == "delete" else len(new))
        work.append(named)
        for one in new:
            (path / f"{one.name}.json").unlink(missing_ok=True)
    assert work[0] == work[1] <= 2 * len(new)
