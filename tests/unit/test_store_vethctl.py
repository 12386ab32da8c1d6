"""vethctl put, get, del, list and dump."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.capabilities import dropped
from tests.commands import Said, Vethctl, runner
from tests.live.applying import EXAMPLES, value
from tests.stores import changed, is_readable, snapshot, write
from vethlib.agent import load
from vethlib.agent.reasons import peer_points_elsewhere
from vethlib.agent.stores.files.directory import DirectoryStore
from vethlib.cli.host import doctor_checks

ROOT = Path(__file__).parents[2]
KEY = "/vnf-agent/vpp1/linux/config/v1/interface/"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "conf"


@pytest.fixture
def vethctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, path: Path) -> Vethctl:
    monkeypatch.setenv("VETHLIB_STORE", f"dir:{path}")
    return runner(capsys, monkeypatch)


@pytest.fixture
def pair(vethctl: Vethctl, path: Path) -> None:
    assert vethctl("put", str(EXAMPLES / "pair")).code == 0
    assert sorted(os.listdir(path)) == ["veth1.json", "veth2.json"]


def names(path: Path) -> list[str]:
    configuration = load([path])
    assert configuration.invalid == ()
    return list(configuration.interfaces)


def text(*values: dict[str, Any]) -> str:
    return json.dumps(values[0] if len(values) == 1 else values)


def test_put_stores_the_interfaces_of_a_file(vethctl: Vethctl, path: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "both.json", value("a", "b"), value("b", "a"))
    with dropped():
        said = vethctl("put", str(file))
    assert said.code == 0
    assert said.err.startswith(f"warning: {path} ")
    assert said.out.splitlines()[:-1] == [f"+ a  {path}/a.json", f"+ b  {path}/b.json"]
    assert load([path]).interfaces == load([file]).interfaces


def test_put_says_what_it_changed_and_what_it_did_not(vethctl: Vethctl, path: Path) -> None:
    vethctl("put", "-", stdin=text(value("a", "b"), value("b", "a")))
    said = vethctl("put", "-", stdin=text(value("a", "b", mtu=1400), value("b", "a")))
    assert said.out.splitlines()[:-1] == [f"~ a  {path}/a.json"]
    said = vethctl("put", "-", "--json", stdin=text(value("b", "a", mtu=1300), value("c", "a")))
    assert said.json == [
        {"op": "change", "name": "b", "source": f"{path}/b.json"},
        {"op": "add", "name": "c", "source": f"{path}/c.json"},
    ]
    assert vethctl("put", "b", "-", "--json", stdin=text(value("b", "a", mtu=1300))).json == []


@pytest.mark.parametrize("key", ["a", f"{KEY}a"])
def test_put_takes_a_name_or_a_full_key(vethctl: Vethctl, path: Path, key: str) -> None:
    assert vethctl("put", key, "-", stdin=text(value("a", "b"))).code == 0
    assert names(path) == ["a"]


@pytest.mark.parametrize(
    ("argv", "stdin", "message"),
    [
        (["put", "b", "-"], text(value("a", "b")), "name 'a': must be 'b', the name in the key"),
        (
            ["put", "a", "-"],
            text(value("a", "b"), value("b", "a")),
            "FILE '-': has 2 interfaces, but KEY names one: "
            "give a file with a alone, or leave out KEY to store all of them",
        ),
        (
            ["put", "a", "-"],
            "[]",
            "FILE '-': has 0 interfaces, but KEY names one: "
            "give a file with a alone, or leave out KEY to store all of them",
        ),
        (
            ["put", KEY.replace("vpp1", "vpp2") + "a", "-"],
            text(value("a", "b")),
            f"KEY '{KEY.replace('vpp1', 'vpp2')}a': the key belongs to label vpp2, not vpp1: "
            "give --label vpp2, or only the name",
        ),
        (["put", "x/a", "-"], text(value("a", "b")), f"KEY 'x/a': must be a name or {KEY}NAME"),
        (["put", KEY, "-"], text(value("a", "b")), f"KEY '{KEY}': must name an interface"),
        (["put", "-", "--label", "x y"], "", "--label 'x y': must be 1 to 63 of the characters A-Z a-z 0-9 . _ -"),
    ],
)
def test_put_refuses_a_key_that_is_not_the_values(
    vethctl: Vethctl, path: Path, argv: list[str], stdin: str, message: str
) -> None:
    said = vethctl(*argv, stdin=stdin)
    assert (said.code, said.out, said.err.splitlines()[0]) == (1, "", f"vethctl: {message}")
    assert not path.exists()


def test_a_key_is_of_the_label_that_is_given(vethctl: Vethctl, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = KEY.replace("vpp1", "vpp2") + "a"
    assert vethctl("put", key, "-", "--label", "vpp2", stdin=text(value("a", "b"))).code == 0
    monkeypatch.setenv("MICROSERVICE_LABEL", "vpp2")
    assert vethctl("get", key).json == value("a", "b")
    assert vethctl("del", key).code == 0
    assert names(path) == []


def test_put_stores_nothing_of_what_is_not_valid_throughout(vethctl: Vethctl, path: Path) -> None:
    said = vethctl("put", "-", stdin=text(value("a", "b"), value("b", "a", mtu=5)))
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("vethctl: stdin[1]: b: mtu 5: ")
    assert vethctl("put", "-", stdin="{").code == 1
    assert vethctl("put", "-", stdin=text(value("a", "b"), value("a", "b"))).code == 1
    assert vethctl("put", "a", "/nowhere/a.json").code == 1
    assert not path.exists()


def test_put_warns_of_what_is_hardly_meant_as_validate_does(vethctl: Vethctl, pair: None) -> None:
    odd = {"name": "c", "enabled": True, "veth": {"peer_if_name": "d"}, "linux_namespace": {"type": 2, "name": "ns1"}}
    said = vethctl("put", "-", "--json", stdin=text(odd, value("e", "veth1")))
    assert (said.code, [one["code"] for one in said.errors]) == (0, ["warning"] * 3)
    assert "linux_namespace" in said.errors[0]["error"]
    assert [reason[2:] for reason in said.reasons] == [
        ("peer-not-configured", "d"),
        ("peer-points-elsewhere", "veth1"),
    ]
    assert vethctl("put", "-", stdin=text(value("d", "c"))).err == ""  # c is in the store


def test_what_this_version_does_not_know_can_be_stored_unchecked(vethctl: Vethctl, path: Path) -> None:
    tap = '{"name": "tap1", "tap": {"version": 2}}'
    assert vethctl("put", "tap1", "-", stdin=tap).code == 1
    said = vethctl("put", "tap1", "-", "--no-validate", stdin=tap)
    assert (said.code, said.out.splitlines()[-1]) == (0, "stored: added 1 interface")
    assert (path / "tap1.json").read_text() == f"{tap}\n"
    many = '[{"name": "tap2", "x": 1.50},\n {"name": "tap3"}]'
    assert vethctl("put", "-", "--no-validate", stdin=many).code == 0
    assert (path / "tap2.json").read_text() == '{"name": "tap2", "x": 1.50}\n'
    assert vethctl("get", "tap1").json == json.loads(tap)


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        ("{", "line 1, column 2: not JSON"),
        ('{"nam": "a"}', "FILE '-': must be an object with a name"),
        ("7", "FILE '-': must be an object with a name"),
        ('[{"name": "a"}, 7]', "FILE '-': element 1: must be an object with a name"),
        ('[{"name": "a"}, {"name": "a"}]', "FILE '-': element 1: 'a' is a duplicate: keep one"),
        ('{"name": "a/b"}', "name 'a/b': must not contain '/'"),
    ],
)
def test_but_only_an_object_with_a_name(vethctl: Vethctl, path: Path, stdin: str, message: str) -> None:
    said = vethctl("put", "-", "--no-validate", stdin=stdin)
    assert (said.code, said.out) == (1, "")
    assert message in said.err
    assert not path.exists()


def test_a_directory_can_be_stored_unchecked(vethctl: Vethctl, path: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "more.json").mkdir(parents=True)
    (source / "a.json").write_text('{"name": "a", "x": 1.50}')
    (source / "b.json").write_text('[{"name": "b"}, {"name": "c"}]')
    (source / ".d.json").write_text("{")
    (source / "e.txt").write_text("{")
    said = vethctl("put", str(source), "--no-validate", "--json")
    assert (said.code, [(edit["op"], edit["name"]) for edit in said.json]) == (0, [("add", name) for name in "abc"])
    assert (path / "a.json").read_text() == '{"name": "a", "x": 1.50}\n'
    again = vethctl("put", str(source), "--no-validate", "--json")
    assert (again.code, again.json) == (0, [])


@pytest.mark.parametrize(
    ("name", "content"),
    [("z.json", '{"name": "a"}'), ("z.json", "{"), ("z.json", "7"), ("z.json", "[7]"), ("z.json", '"a"')],
)
def test_but_only_if_each_of_its_files_can_be(
    vethctl: Vethctl, path: Path, tmp_path: Path, name: str, content: str
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.json").write_text('{"name": "a"}')
    (source / name).write_text(content)
    said = vethctl("put", str(source), "--no-validate", "--json")
    assert (said.code, said.out, said.error["code"], said.error["field"]) == (1, "", "invalid-value", "FILE")
    assert str(source / name) in said.error["error"]
    assert not path.exists()


def test_a_directory_without_files_stores_nothing_unchecked(vethctl: Vethctl, tmp_path: Path) -> None:
    said = vethctl("put", str(tmp_path), "--no-validate", "--json")
    assert (said.code, said.json, said.error["code"]) == (0, [], "warning")


@pytest.mark.parametrize("file", ["/dev/zero", "-"])
def test_no_more_is_read_of_what_is_stored_unchecked_than_the_limit(path: Path, file: str) -> None:
    command = [sys.executable, "-m", "vethlib", "put", file, "--no-validate", "--limit", "file_bytes=1M"]
    with open("/dev/zero", "rb") as zeros:
        done = subprocess.run(
            ["sh", "-c", 'ulimit -v 2000000; exec "$@"', "sh", *command, "--store", f"dir:{path}"],
            cwd=ROOT,
            stdin=zeros,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, path.exists()) == (1, False)
    assert "must have at most 1048576 bytes (limit file_bytes)" in done.stderr


def test_get_prints_one_as_an_object_and_more_as_a_list(vethctl: Vethctl, pair: None) -> None:
    example = json.loads((EXAMPLES / "pair" / "veth1.json").read_text())
    assert vethctl("get", "veth1").json == example
    assert [each["name"] for each in vethctl("get", f"{KEY}veth2", "veth1").json] == ["veth2", "veth1"]


def test_what_get_prints_can_be_edited_and_put_back(vethctl: Vethctl, pair: None, path: Path) -> None:
    printed = vethctl("get", "veth1").out.replace("1500", "1400")
    assert vethctl("put", "veth1", "-", stdin=printed).code == 0
    assert load([path]).interfaces["veth1"].mtu == 1400


def test_what_is_not_there_is_an_error_that_names_what_is_meant(vethctl: Vethctl, pair: None, path: Path) -> None:
    said = vethctl("get", "veth1", "vet2", "--json")
    assert (said.code, said.out, said.error["code"]) == (2, "", "not-stored")
    assert "veth2?" in said.error["error"]
    assert f"vethctl list --store dir:{path}" in said.error["hint"]
    error = vethctl("get", "nobody", "--json").error
    assert (error["code"], error["field"]) == ("not-stored", "NAME")
    (path / "broken.json").write_text("{")
    assert f"warning: {path}/broken.json: line 1, column 2: " in vethctl("get", "nobody").err


def test_get_does_not_choose_between_two(vethctl: Vethctl, pair: None, path: Path) -> None:
    write(path / "other.json", value("veth1", "x"))
    said = vethctl("get", "veth1", "--json")
    assert (said.code, said.out, said.error["code"], said.error["field"]) == (1, "", "invalid-value", "name")
    assert all(f"{path}/{file}.json" in said.error["error"] for file in ("other", "veth1"))


def test_del_deletes_exactly_what_is_named(vethctl: Vethctl, path: Path) -> None:
    """Deleting veth1 by prefix also deleted veth10, once."""
    vethctl("put", "-", stdin=text(value("veth1", "x"), value("veth10", "x"), value("veth", "x")))
    said = vethctl("del", "veth1")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[:-1] == [f"- veth1  {path}/veth1.json"]
    assert names(path) == ["veth", "veth10"]
    assert vethctl("del", f"{KEY}veth", "--json").json == [
        {"op": "delete", "name": "veth", "source": f"{path}/veth.json"}
    ]
    assert names(path) == ["veth10"]


def test_del_deletes_by_prefix_only_when_told_to(vethctl: Vethctl, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VETHLIB_PREFIX", "1")
    vethctl("put", "-", stdin=text(*(value(name, "x") for name in ("veth1", "veth10", "veth2", "a1", "b1"))))
    assert vethctl("del", "veth").code == 2
    assert len(names(path)) == 5
    said = vethctl("del", "veth1", "a", "c", "--prefix", "--json")
    assert (said.code, len(said.json)) == (2, 3)
    assert (said.error["code"], said.error["field"]) == ("not-stored", "NAME")
    assert names(path) == ["b1", "veth2"]
    assert vethctl("del", "", "--prefix").code == 1
    assert names(path) == ["b1", "veth2"]


def test_del_does_what_it_can_and_tells_what_was_not_there(vethctl: Vethctl, pair: None, path: Path) -> None:
    said = vethctl("del", "veth1", "veth3")
    assert said.code == 2
    assert said.out.splitlines()[0] == f"- veth1  {path}/veth1.json"
    assert "'veth3'; " in said.err
    said = vethctl("del", "veth2", "veth1", "--missing-ok")
    assert (said.code, said.err) == (0, "")
    said = vethctl("del", "veth2", "--missing-ok")
    assert (said.code, said.out, said.err) == (0, "", "")
    assert os.listdir(path) == []


def test_list_shows_what_is_stored_and_what_is_wrong_with_it(vethctl: Vethctl, pair: None, path: Path) -> None:
    write(path / "more.json", value("veth10", "veth1", enabled=False), value("veth3", "x", mtu=5))
    (path / "lost.json").write_text("[{]")
    said = vethctl("list")
    assert (said.code, said.err) == (1, "")
    assert vethctl("list", "--json").code == 1
    rows = [line.split(maxsplit=5) for line in said.out.splitlines()]
    assert rows[0] == ["NAME", "NETNS", "PEER", "ADDRESSES", "ENABLED", "PROBLEM"]
    assert [row[0] for row in rows[1:]] == ["lost", "veth1", "veth2", "veth3", "veth10"]
    assert "lost  " in said.out
    assert said.out.splitlines()[2].split() == [
        *("veth1", "ns1", "veth2", "192.168.22.1/24", "2001:db8::ff00:89e3:bb42/48", "yes")
    ]
    assert said.out.splitlines()[4].split(maxsplit=1)[1].startswith("mtu 5: ")
    assert said.out.splitlines()[5].split(maxsplit=4) == [
        *("veth10", "home", "veth1", "no", str(peer_points_elsewhere("veth1", "veth2")))
    ]


def test_list_has_one_schema_for_good_and_bad(vethctl: Vethctl, pair: None, path: Path) -> None:
    write(path / "bad.json", value("veth3", "x", mtu=5))
    found = vethctl("list", "--json").json
    assert {tuple(one) for one in found} == {
        ("name", "valid", "netns", "peer", "addresses", "enabled", "problem", "source", "reasons")
    }
    assert found[1] == {
        "name": "veth2",
        "valid": True,
        "netns": "netns:ns2",
        "peer": "veth1",
        "addresses": ["192.168.22.2/24"],
        "enabled": True,
        "problem": "",
        "source": f"{path}/veth2.json",
        "reasons": [],
    }
    assert (found[2]["valid"], found[2]["peer"], found[2]["problem"][:5]) == (False, None, "mtu 5")


def test_an_empty_store_is_no_error(vethctl: Vethctl, path: Path) -> None:
    path.mkdir()
    said = vethctl("list")
    assert (said.code, said.out) == (0, "")
    assert f"dir:{path}" in said.err
    assert vethctl("list", "--json").json == []
    assert vethctl("dump").json == []


def test_put_restores_a_dump(vethctl: Vethctl, pair: None, path: Path) -> None:
    write(path / "star.json", *json.loads((EXAMPLES / "star" / "star.json").read_text()))
    before = load([path]).interfaces
    dumped = vethctl("dump")
    assert (dumped.code, dumped.err) == (0, "")
    for file in path.iterdir():
        file.unlink()
    assert vethctl("put", "-", stdin=dumped.out).code == 0
    assert load([path]).interfaces == before
    assert len(before) == 42
    assert vethctl("put", "-", "--json", stdin=dumped.out).json == []


def test_a_dump_holds_what_this_version_does_not_know(vethctl: Vethctl) -> None:
    tap = {"name": "tap1", "tap": {"version": 2}}
    vethctl("put", "-", "--no-validate", stdin=text(tap))
    dumped = vethctl("dump")
    assert dumped.json == [tap]
    assert vethctl("put", "-", "--no-validate", stdin=dumped.out).code == 0


def test_a_dump_that_lacks_something_says_so_and_does_not_look_like_success(
    vethctl: Vethctl, pair: None, path: Path
) -> None:
    (path / "broken.json").write_text("{")
    (path / "odd.json").write_text("[7]")
    said = vethctl("dump", "--json")
    assert said.code == 1
    assert [one["name"] for one in said.json] == ["veth1", "veth2"]
    assert [one["code"] for one in said.errors] == ["invalid-value"] * 2
    for error, place in zip(said.errors, ("broken.json: line 1, column 2: ", "odd.json[0]: "), strict=True):
        assert f"{path}/{place}" in error["error"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"name": "x", "mtu": 1, "veth": {"peer_if_name": "veth1"}}', ""),
        ('{"name": "x", "veth": 7}', ""),
        ("{", ": line 1, column 2"),
        ("[7]", "[0]"),
    ],
)
def test_a_dump_for_people_has_a_value_that_is_invalid_and_does_not_look_like_success(
    vethctl: Vethctl, pair: None, path: Path, text: str, place: str
) -> None:
    assert vethctl("dump", "--table").code == 0
    (path / "x.json").write_text(text)
    said = vethctl("dump", "--table")
    assert said.code == vethctl("dump").code == 1
    assert f"{path}/x.json{place}: " in said.err
    assert len(said.out.splitlines()) == 4
    assert f"{path}/x.json" in said.out


@pytest.mark.parametrize("levels", [101, 990, 1200])
def test_a_value_that_is_nested_too_deeply_keeps_no_other_out_of_a_dump(
    vethctl: Vethctl, pair: None, path: Path, levels: int
) -> None:
    (path / "deep.json").write_text(f'{{"name": "x", "a": {"[" * (levels - 1)}{"]" * (levels - 1)}}}')
    said = vethctl("dump", "--json")
    assert said.code == 1
    assert [one["name"] for one in said.json] == ["veth1", "veth2"]
    assert "deep.json: nested too deeply" in said.error["error"]
    assert vethctl("get", "veth1").json["name"] == "veth1"


GOOD = '{"name": "a", "enabled": true, "veth": {"peer_if_name": "b"}}'


@pytest.mark.parametrize(
    ("files", "dumped"),
    [
        ({"1": GOOD, "2": GOOD.replace('"b"', '"c"')}, []),
        ({"a": GOOD, "2": GOOD.replace('"b"', '"c"')}, ["a"]),  # the agent takes the file that is called after it
        ({"1": f"[{GOOD}, {GOOD}]"}, []),
        ({"1": GOOD, "2": '{"name": "s", "name": "s2", "veth": {"peer_if_name": "a"}}'}, ["a"]),
        ({"1": GOOD, "2": '{"name": "s", "veth": {"peer_if_name": "a", "peer_if_name": "b"}}'}, ["a"]),
        ({"1": GOOD, "2": '{"name": "sur\\ud800", "veth": {"peer_if_name": "a"}}'}, ["a"]),
        ({"1": GOOD, "2": '{"name": "b", "mtu": NaN, "veth": {"peer_if_name": "a"}}'}, ["a"]),
        ({"1": GOOD, "2": '{"name": "b", "x": [{"y": -Infinity}]}'}, ["a"]),
        ({"1": GOOD, "2": '{"name": "b", "mtu": 1e400}'}, ["a"]),
        ({"1": GOOD, "2": f'{{"name": "b", "mtu": 1{"0" * 400}}}'}, ["a"]),
        ({"1": GOOD, "2": '{"name": "b", "mtu": 5, "veth": {"peer_if_name": "a"}}'}, ["a", "b"]),
    ],
)
def test_a_dump_that_put_would_not_take_as_it_is_does_not_look_like_success(
    vethctl: Vethctl, path: Path, files: dict[str, str], dumped: list[str]
) -> None:
    path.mkdir()
    for name, content in files.items():
        (path / f"{name}.json").write_text(content)
    said = vethctl("dump", "--json")
    assert said.code == 1
    assert {error["code"] for error in said.errors} == {"invalid-value"}
    assert [one["name"] for one in json.loads(said.out, parse_constant=pytest.fail)] == dumped
    for file in path.iterdir():
        file.unlink()
    assert vethctl("put", "-", "--no-validate", stdin=said.out).code == 0


@pytest.mark.parametrize("value", ['"mtu": NaN', '"mtu": 1e999', '"x": {"y": [Infinity]}', '"mtu": 1, "mtu": 2'])
def test_a_value_that_json_cannot_hold_is_an_error_of_get(vethctl: Vethctl, path: Path, value: str) -> None:
    path.mkdir()
    (path / "a.json").write_text(f'{{"name": "a", {value}}}')
    said = vethctl("get", "a", "--json")
    assert (said.code, said.out, said.error["code"], said.error["field"]) == (1, "", "invalid-value", "NAME")


def test_raised_limits_hold_for_every_command_that_reads_values(
    vethctl: Vethctl, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.mkdir()
    ends = [value("p", "q", num_queues=300), value("q", "p")]
    (path / "pair.json").write_text(json.dumps(ends))
    monkeypatch.delenv("VETHLIB_LIMIT", raising=False)
    store = f"dir:{path}"
    lines: list[list[str]] = [
        ["list"],
        ["dump"],
        ["describe", "p", "--store", store],
        ["graph", str(path), "--offline"],
    ]
    raised = "queues=400"
    for line in lines:
        refused = vethctl(*line, "--json")
        assert "num_queues" in refused.out + refused.err, line
        accepted = vethctl(*line, "--limit", raised, "--json")
        assert "must be" not in accepted.out + accepted.err, line
    (entry, _) = vethctl("list", "--limit", raised, "--json").json
    assert entry["valid"]
    assert "num_queues" in vethctl("put", str(path / "pair.json")).err
    assert vethctl("put", str(path / "pair.json"), "--limit", raised).err == ""
    monkeypatch.setenv("VETHLIB_LIMIT", raised)
    assert vethctl("list").code == 0
    assert vethctl("dump").code == 0
    monkeypatch.setenv("VETHLIB_STORE", store)
    (found,) = doctor_checks.store()
    assert found.ok


COMMANDS = (["put", "-"], ["get", "a"], ["del", "a"], ["list"], ["dump"])


@pytest.mark.parametrize("argv", COMMANDS, ids=lambda argv: argv[0])
def test_every_command_needs_a_store_that_it_knows(
    vethctl: Vethctl, argv: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VETHLIB_STORE")

    def run(*more: str) -> Said:
        return vethctl(*argv, *more, "--json", stdin=text(value("a", "b")))

    said = run()
    assert (said.code, said.error["code"], said.error["field"]) == (1, "usage", "--store")
    assert "VETHLIB_STORE" in said.error["hint"]
    said = run("--store", "redis://localhost")
    assert (said.code, said.error["code"], said.error["field"]) == (1, "invalid-value", "--store")


@pytest.mark.parametrize("argv", COMMANDS[1:], ids=lambda argv: argv[0])
def test_a_store_that_is_not_there_is_refused_and_not_empty(vethctl: Vethctl, path: Path, argv: list[str]) -> None:
    said = vethctl(*argv, "--json")
    assert (said.code, said.out, said.error["code"]) == (2, "", "store-error")
    assert str(path) in said.error["error"]
    assert not path.exists()


def test_a_process_that_puts_is_seen_at_once_by_a_store_that_follows(path: Path) -> None:
    path.mkdir()
    store = DirectoryStore(path)
    assert snapshot(store) == {}
    command = [sys.executable, "-m", "vethlib", "put", "-", "--store", f"dir:{path}"]
    writers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=ROOT) for _ in range(3)]
    for number, writer in enumerate(writers):
        assert writer.stdin is not None
        writer.stdin.write(text(value(f"a{number}", f"b{number}"), value(f"b{number}", f"a{number}")).encode())
        writer.stdin.close()
    told: set[str] = set()
    while len(told) < 6:
        for name, one in changed(store).items():
            assert one is not None
            assert one.interface is not None
            assert name not in told
            told.add(name)
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert store.read() == []
    assert not is_readable(store, 0)
    store.close()


@pytest.mark.slow
def test_two_processes_that_put_into_one_list_lose_nothing(path: Path) -> None:
    path.mkdir()
    many = [f"veth{number}" for number in range(8)]
    write(path / "list.json", *[value(name, "x") for name in many])
    store = DirectoryStore(path)
    snapshot(store)
    command = [sys.executable, "-m", "vethlib", "put", "--store", f"dir:{path}"]
    writers = [
        subprocess.Popen(
            [*command, name, "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT
        )
        for name in many
    ]
    for name, writer in zip(many, writers, strict=True):
        assert writer.stdin is not None
        writer.stdin.write(text(value(name, "y")).encode())
        writer.stdin.close()
    told: set[str] = set()
    while len(told) < len(many):
        told |= changed(store).keys()
    assert [writer.wait() for writer in writers] == [0] * len(many)
    assert {one.peer_if_name for one in load([path]).interfaces.values()} == {"y"}
    assert os.listdir(path) == ["list.json"]
    store.close()
