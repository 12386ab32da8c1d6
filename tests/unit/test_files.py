"""Configuration in files."""

from __future__ import annotations

import errno
import io
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from tests.refusing import raises
from vethlib.agent import Configuration, UnreadablePath, load
from vethlib.errors import InvalidValue, VethError

EXAMPLES = Path(__file__).parents[2] / "examples"


def text(name: str, peer: str = "peer") -> str:
    return f'{{"name": "{name}", "veth": {{"peer_if_name": "{peer}"}}}}'


def names(configuration: Configuration) -> list[str]:
    return list(configuration.interfaces)


def test_a_file_holds_an_interface_or_a_list_of_them(tmp_path: Path) -> None:
    one, many = tmp_path / "one.json", tmp_path / "many.conf"
    one.write_text(text("a"))
    many.write_text(f"[{text('b')}, {text('c')}]")
    configuration = load([one, str(many)])
    assert names(configuration) == ["a", "b", "c"]
    assert [parsed.source for parsed in configuration.parsed] == [str(one), f"{many}[0]", f"{many}[1]"]
    assert configuration.invalid == ()


def test_of_a_directory_only_the_json_files_are_read_in_order(tmp_path: Path) -> None:
    for name in ("b.json", "a.json", ".hidden.json", "c.json~", "notes.txt"):
        (tmp_path / name).write_text(text(name[0]) if name[1:] == ".json" else "not for us")
    (tmp_path / "dir.json").mkdir()
    (tmp_path / "dir.json" / "d.json").write_text(text("d"))
    assert names(load([tmp_path])) == ["a", "b"]


def test_a_stream_is_read_as_bytes_where_it_has_them() -> None:
    assert names(load(["-"], io.StringIO(text("a")))) == ["a"]
    assert names(load(["-"], io.BytesIO(text("a").encode()))) == ["a"]
    stream = io.TextIOWrapper(io.BytesIO(b'{"name": "\xff"}'), encoding="utf-8")
    (parsed,) = load(["-"], stream).parsed
    assert parsed.source == "stdin"
    assert "not UTF-8" in str(parsed.problems[0])


def test_without_a_stream_a_dash_is_a_path() -> None:
    with raises(UnreadablePath, path="-"):
        load(["-"])


def test_an_interface_named_twice_is_refused_in_both_places(tmp_path: Path) -> None:
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    one.write_text(text("veth1", "x"))
    other.write_text(f"[{text('veth1', 'y')}, {text('veth10')}]")
    configuration = load([tmp_path])
    assert names(configuration) == ["veth10"]
    first, second = configuration.invalid
    for problem, places in ((first, (one, f"{other}[0]")), (second, (f"{other}[0]", one))):
        (found,) = problem.problems
        assert (found.field, found.value) == ("name", "veth1")
        assert [text.strip(": ") for text in re.findall(r" in (\S+)", found.hint)] == list(map(str, places))


def test_an_invalid_twin_counts_too(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(f'[{text("veth1")}, {{"name": "veth1", "mtu": "abc"}}]')
    assert names(load([tmp_path])) == []


def test_a_file_given_twice_is_read_once(tmp_path: Path) -> None:
    file, link = tmp_path / "a.json", tmp_path / "b.json"
    file.write_text(text("a"))
    link.symlink_to(file)
    configuration = load([tmp_path, file, file])
    assert names(configuration) == ["a"]
    assert configuration.invalid == ()


def test_one_bad_file_does_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text(text("b"))
    configuration = load([tmp_path])
    assert names(configuration) == ["b"]
    assert [parsed.source for parsed in configuration.invalid] == [str(tmp_path / "a.json")]


def test_a_directory_without_json_is_empty_and_warned_of(tmp_path: Path) -> None:
    configuration = load([tmp_path])
    (warning,) = configuration.warnings
    assert (configuration.parsed, str(tmp_path) in warning) == ((), True)


def test_what_cannot_be_read_is_an_error_and_never_an_empty_configuration(tmp_path: Path) -> None:
    missing = tmp_path / "missing.json"
    with pytest.raises(VethError) as caught:
        load([missing])
    error = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(error, UnreadablePath)
    assert isinstance(error, OSError)
    assert (error.path, error.reason, error.errno) == (str(missing), os.strerror(2), 2)
    assert str(missing) in str(error)


def test_a_single_path_is_not_taken_for_a_list_of_letters(tmp_path: Path) -> None:
    wrong: Any
    for wrong in (str(tmp_path), tmp_path, b"/", None, 5):
        with raises(InvalidValue, field="paths"):
            load(wrong)


def test_a_text_that_can_be_no_path_is_an_error(tmp_path: Path) -> None:
    for text, shown in (("a\0b", "a\\0b"), ("a\ud800", "a\\ud800")):
        with raises(UnreadablePath, path=shown):
            load([tmp_path, text])


def test_a_dangling_link_in_a_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.json").symlink_to(tmp_path / "gone")
    with raises(UnreadablePath, path=f"{tmp_path}/a.json", errno=errno.ENOENT):
        load([tmp_path])


def test_a_file_that_vanishes_from_its_server_while_it_is_opened_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.json").write_text(text("a"))
    opened = os.open

    def refuse(path: Any, *args: Any, **kwargs: Any) -> int:
        if str(path).startswith("/proc/self/fd/"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    with raises(UnreadablePath, path=f"{tmp_path}/a.json", errno=errno.ENOENT):
        load([tmp_path])


def test_a_directory_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root can read everything, so the refusal has to be simulated.
    def refuse(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with raises(UnreadablePath, path=str(tmp_path), errno=errno.EACCES):
        load([tmp_path])


@pytest.mark.parametrize(
    ("path", "count"), [("pair", 2), ("chain", 4), ("star", 40), ("pair/veth1.json", 1), ("star/star.json", 40)]
)
def test_the_examples_are_valid(path: str, count: int) -> None:
    configuration = load([EXAMPLES / path])
    assert configuration.invalid == ()
    assert configuration.warnings == ()
    assert not any(parsed.warnings for parsed in configuration.parsed)
    assert len(configuration.interfaces) == count


@pytest.mark.parametrize("path", ["pair", "chain", "star"])
def test_the_examples_are_whole(path: str) -> None:
    interfaces = load([EXAMPLES / path]).interfaces
    for interface in interfaces.values():
        assert interfaces[interface.peer_if_name].peer_if_name == interface.name
