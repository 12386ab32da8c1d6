"""vethctl's errors for invalid command lines, and its help."""

from __future__ import annotations

import json
import re
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from tests.commands import Vethctl
from vethlib.cli.arguments import COMMANDS, parse, parser_of
from vethlib.cli.arguments.parser import UsageError, json_wins, seconds


@pytest.mark.parametrize(
    ("argv", "message", "field"),
    [
        ([], "COMMAND is missing", "COMMAND"),
        (["--color"], "COMMAND is missing", "COMMAND"),
        (["aply", "x"], "there is no command 'aply'; did you mean apply?", "COMMAND"),
        (["xyzzy"], "there is no command 'xyzzy'", "COMMAND"),
        (["apply"], "PATH is missing", "PATH"),
        (["apply", "x", "--prun"], "there is no flag '--prun'; did you mean --prune?", "--prun"),
        (["apply", "x", "--lable=y"], "there is no flag '--lable'; did you mean --label?", "--lable"),
        (["apply", "x", "--qqqq"], "there is no flag '--qqqq'", "--qqqq"),
        (
            ["apply", "x", "--timeout", "soon"],
            "--timeout 'soon': must be a number of seconds, or a time such as 1m30s",
            "--timeout",
        ),
        (
            ["apply", "x", "--timeout", "inf"],
            "--timeout 'inf': must be a number of seconds, or a time such as 1m30s",
            "--timeout",
        ),
        (["apply", "x", "--timeout"], "--timeout: expected one argument", "--timeout"),
        (["diff", "x", "--missing-netns", "no"], "--missing-netns 'no': must be create or wait", "--missing-netns"),
        (["show", "--color=red"], "--color 'red': must be auto, always or never", "--color"),
        (["show", "-d", "-br"], "-br/--brief: not allowed with -d/--details", "-br/--brief"),
        (["create", "a", "b", "--mtu", "big"], "--mtu 'big': must be an integer", "--mtu"),
        (["show", "etcd://h:1"], "'etcd://h:1' is the URL of a store", "--store"),
        (["get", "etcd://u:s3@cret@h", "--label", "x"], "'etcd://u:…@h' is the URL of a store", "--store"),
        (["help", "show", "etcd://h:1"], "'etcd://h:1' is the URL of a store", "--store"),
        (["doctor", "me"], "one argument too many: 'me'", "me"),
        (["netns", "remove", "x"], "list|add|del|exec 'remove': must be list, add, del or exec", "list|add|del|exec"),
    ],
)
def test_a_usage_error_names_the_argument_the_value_and_the_cure(
    vethctl: Vethctl, argv: list[str], message: str, field: str
) -> None:
    said = vethctl(*argv, "--json")
    assert (said.code, said.out) == (1, "")
    assert (said.error["error"], said.error["code"], said.error["field"]) == (message, "usage", field)
    assert said.error["hint"].startswith(("usage: vethctl ", "try: vethctl --help", "one of: apply, ", "give it with "))
    plain = vethctl(*argv)
    assert plain.err.splitlines() == [f"vethctl: {message}", f"  {said.error['hint']}"]


@pytest.mark.parametrize(
    ("text", "value"), [("30", 30), ("2.5", 2.5), ("30s", 30), ("2m", 120), ("1m30s", 90), ("1h", 3600), ("500ms", 0.5)]
)
def test_a_time_is_seconds_or_has_units(text: str, value: float) -> None:
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["s", "-1", "nan", "1e400", "9" * 400, "9" * 400 + "s"])
def test_a_time_that_never_ends_or_is_none_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError):
        seconds(text)


LABEL = "must be 1 to 63 of the characters A-Z a-z 0-9 . _ -; correct it, or unset it and give --label"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("VETHLIB_TIMEOUT", "x", "VETHLIB_TIMEOUT 'x': must be a number of seconds, or a time such as 1m30s"),
        ("VETHLIB_PRUNE", "maybe", "VETHLIB_PRUNE 'maybe': must be 1 or 0"),
        ("VETHLIB_LOOPBACK", "x", "VETHLIB_LOOPBACK 'x': must be up or down"),
        ("VETHLIB_COLOR", "red", "VETHLIB_COLOR 'red': must be auto, always or never"),
        ("VETHLIB_JSON", "please", "VETHLIB_JSON 'please': must be 1 or 0"),
        ("VETHLIB_LABEL", "x y", f"VETHLIB_LABEL 'x y': {LABEL}"),
        ("MICROSERVICE_LABEL", "x y", f"MICROSERVICE_LABEL 'x y': {LABEL}"),
    ],
)
def test_a_bad_environment_variable_is_named(
    vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    said = vethctl("apply", "x")
    assert (said.code, said.err.splitlines()[0]) == (1, f"vethctl: {message}")


@pytest.mark.parametrize(
    ("variable", "value", "argv"),
    [
        ("VETHLIB_TIMEOUT", "x", ["apply", "x", "--timeout", "2s"]),
        ("VETHLIB_LOOPBACK", "x", ["apply", "x", "--loopback=down"]),
        ("VETHLIB_JSON", "please", ["status", "--json"]),
        ("VETHLIB_SORT", "size", ["top", "--sort", "rx"]),
    ],
)
def test_a_flag_wins_over_an_invalid_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, argv: list[str]
) -> None:
    monkeypatch.setenv(variable, value)
    assert parse(argv).given
    with pytest.raises(UsageError) as caught:
        parse([argv[0], "x"] if argv[0] == "apply" else argv[:1])
    assert caught.value.field == variable


@pytest.mark.parametrize(
    ("variable", "argv", "dest"),
    [
        ("VETHLIB_LABEL", ["status"], "label"),
        ("MICROSERVICE_LABEL", ["status"], "label"),
        ("VETHLIB_TIMEOUT", ["apply", "x"], "timeout"),
        ("VETHLIB_STORE", ["diff"], "store"),
        ("VETHLIB_COLOR", ["show"], "color"),
        ("VETHLIB_HOOK", ["agent"], "hook"),
        ("VETHLIB_PRUNE", ["apply", "x"], "prune"),
    ],
)
def test_an_empty_variable_is_as_good_as_none(
    monkeypatch: pytest.MonkeyPatch, variable: str, argv: list[str], dest: str
) -> None:
    default = getattr(parse(argv), dest)
    monkeypatch.setenv(variable, "")
    assert getattr(parse(argv), dest) == default


def test_a_form_from_the_environment_yields_to_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VETHLIB_BRIEF", "1")
    assert parse(["show"]).form == "brief"
    assert parse(["show", "-d"]).form == "details"
    monkeypatch.setenv("VETHLIB_BRIEF", "")
    assert parse(["show"]).form is None


COMMANDS_AND_ARGUMENTS = [
    ["set", "a", "--mtu", "1400"],
    ["set", "a", "--down"],
    ["move", "a", "ns1"],
    ["create", "a", "b"],
    ["delete", "a"],
    ["netns", "add", "ns1"],
    ["netns", "list"],
    ["stats"],
    ["show", "a"],
    ["watch"],
    ["top"],
    ["graph"],
    ["apply", "x"],
    ["apply", "x", "--timeout", "2s"],
    ["confirm"],
    ["diff", "x"],
    ["validate", "x"],
    ["put", "x"],
    ["del", "x"],
    ["dump"],
    ["status", "--label", "x"],
    ["describe", "x"],
]
OF_THE_AGENT = {"--missing-netns", "--loopback", "--limit"}
OF_APPLY = {"--prune", "--strict", "--force", "--dry-run", "--timeout"}
OF_VIEWS = {"--brief", "--details", "--all", "--human", "--interval", "--sort"}
OF_HOOKS = {"--name", "--peer", "--state", "--old-state", "--reason", "--netns", "--host-name", "--ifindex"}


@pytest.mark.parametrize("argv", COMMANDS_AND_ARGUMENTS, ids=" ".join)
def test_what_a_command_does_to_an_object_is_never_taken_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, argv: list[str]
) -> None:
    expected = vars(parse(argv))
    with_variable = set(parser_of(argv[0]).variables.values())
    of_all = {"--json", "--color", "--label", "--store", "--status-dir"}
    assert with_variable <= of_all | OF_THE_AGENT | OF_APPLY | OF_VIEWS
    for flag in {flag for name in COMMANDS for flag in parser_of(name).flags} - with_variable | OF_HOOKS:
        name = f"VETHLIB_{flag.removeprefix('--').replace('-', '_').upper()}"
        for value in ("1", "on", "x", "30s", "rp_filter=0"):
            monkeypatch.setenv(name, value)
            assert vars(parse(argv)) == expected
        monkeypatch.delenv(name)


def test_every_flag_of_the_agent_has_a_variable() -> None:
    parser = parser_of("agent")
    assert set(parser.variables.values()) == set(parser.flags)


def test_hooks_from_the_environment_are_lines_and_yield_to_the_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse(["agent"]).hook == []
    monkeypatch.setenv("VETHLIB_HOOK", "exec:/bin/a b, c\n\n  https://h/x  \n")
    assert parse(["agent"]).hook == ["exec:/bin/a b, c", "https://h/x"]
    assert parse(["agent", "--hook", "exec:/y"]).hook == ["exec:/y"]
    assert parse(["agent", "--hook=exec:/y", "--hook", "exec:/z"]).hook == ["exec:/y", "exec:/z"]
    monkeypatch.setenv("VETHLIB_HOOK", "")
    assert parse(["agent"]).hook == []


@pytest.mark.parametrize(
    ("argv", "dest", "value"),
    [
        (["show", "--", "-x"], "targets", ["-x"]),
        (["show", "a", "--json", "--", "-br", "--help"], "targets", ["a", "-br", "--help"]),
        (["delete", "--missing-ok", "--", "-x", "--json"], "links", ["-x", "--json"]),
        (["get", "--store", "dir:x", "--", "-x"], "names", ["-x"]),
        (["set", "--down", "--", "-x"], "link", "-x"),
        (["move", "--name", "b", "--", "-x", ""], "to", ""),
        (["create", "--mtu", "1400", "--", "-x", "--down"], "b", "--down"),
        (["netns", "add", "--up", "--", "-n"], "names", ["-n"]),
        (["netns", "--", "add", "-n"], "names", ["-n"]),
    ],
    ids=repr,
)
def test_no_word_after_two_hyphens_is_a_flag(argv: list[str], dest: str, value: object) -> None:
    args = parse(argv)
    assert getattr(args, dest) == value
    assert args.json == ("--json" in argv[: argv.index("--")])
    assert {type(one) for one in (value if isinstance(value, list) else [value])} == {str}


@pytest.mark.parametrize("argv", [["set", "a", "--", "--down"], ["list", "--", "-x"], ["move", "--", "-x", "a", "-b"]])
def test_a_word_too_many_after_two_hyphens_is_named(vethctl: Vethctl, argv: list[str]) -> None:
    said = vethctl(*argv)
    assert (said.code, said.err.splitlines()[0]) == (1, f"vethctl: one argument too many: {argv[-1]!r}")


@pytest.mark.parametrize(
    ("argv", "flag"),
    [
        (["status", "--label", "--", "x"], "--label"),
        (["set", "--mtu", "--", "1400"], "--mtu"),
        (["set", "a", "--up", "--addr", "--", "10.0.0.1/24"], "--addr"),
        (["get", "--label", "x", "--store", "--", "dir:x", "a"], "--store"),
        (["graph", "-o", "--", "x"], "--output"),
        (["top", "-n", "--", "5"], "-n"),
        (["set", "--mtu", "--"], "--mtu"),
        (["set", "--mtu"], "--mtu"),
    ],
    ids=repr,
)
def test_no_word_after_two_hyphens_is_the_value_of_a_flag(vethctl: Vethctl, argv: list[str], flag: str) -> None:
    said = vethctl(*argv)
    assert said.code == 1
    assert flag in said.err.splitlines()[0]
    assert said.err.splitlines()[0].endswith(": expected one argument")


@pytest.mark.parametrize(
    ("argv", "dest", "value"),
    [
        (["set", "a", "--alias", "etcd:foo"], "alias", "etcd:foo"),
        (["set", "a", "--alias", "etcd://foo"], "alias", "etcd://foo"),
        (["set", "a", "--alias", "dir:/xx"], "alias", "dir:/xx"),
        (["top", "--filter", "dir:/xx"], "filter", "dir:/xx"),
        (["del", "etcd:x"], "names", ["etcd:x"]),
    ],
)
def test_a_text_that_looks_like_a_store_is_a_value_as_any_other(argv: list[str], dest: str, value: object) -> None:
    assert getattr(parse(argv), dest) == value


@pytest.mark.parametrize(
    ("argv", "field"),
    [
        (["status", "--all-labels", "--store", "etcd://127.0.0.1:1", "--code", "link-foreign"], "--all-labels"),
        (["diff", "x", "--store", "dir:/x"], "--store"),
    ],
)
def test_a_flag_that_would_be_ignored_is_an_error(vethctl: Vethctl, argv: list[str], field: str) -> None:
    said = vethctl(*argv, "--json")
    assert (said.code, said.error["code"], said.error["field"]) == (1, "usage", field)


def test_flags_and_arguments_come_in_any_order() -> None:
    args = parse(["--json", "apply", "a", "--prune", "b", "--timeout=2", "c"])
    assert (args.paths, args.prune, args.timeout, args.json) == (["a", "b", "c"], True, 2.0, True)
    args = parse(["create", "--mtu", "1400", "a", "--a-addr", "10.0.0.1/24", "b@ns1"])
    assert (args.a, args.b, args.mtu, args.a_addr) == ("a", "b@ns1", 1400, ["10.0.0.1/24"])


@pytest.mark.parametrize(
    ("argv", "color", "targets"),
    [
        (["show"], "auto", []),
        (["--color", "show", "x"], "always", ["x"]),
        (["show", "--color", "x"], "always", ["x"]),
        (["show", "--color", "never", "x"], "never", ["x"]),
        (["--color", "auto", "show", "x"], "auto", ["x"]),
        (["show", "x", "--color=never"], "never", ["x"]),
    ],
)
def test_the_value_of_color_may_be_left_out(argv: list[str], color: str, targets: list[str]) -> None:
    args = parse(argv)
    assert (args.color, args.targets) == (color, targets)


def test_the_help_names_every_command_and_how_to_begin(vethctl: Vethctl) -> None:
    said = vethctl("--help")
    assert said.code == 0
    for name, command in COMMANDS.items():
        assert f"  {name:<10} {command.summary}\n" in said.out
    assert "examples:\n  vethctl demo\n" in said.out
    assert "exit codes: 0 done" in said.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_with_its_usage(vethctl: Vethctl, name: str) -> None:
    said = vethctl(name, "--help")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"usage: vethctl {name}")
    assert "--json" in said.out
    assert "vethctl" in said.out.removeprefix("usage: vethctl") or name == "doctor"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_usage_of_a_command_has_all_its_flags(name: str) -> None:
    parser = parser_of(name)
    assert parser.usage is not None
    shown = set(re.findall(r"(?<=[\s\[])--?[a-z0-9-]+", parser.usage.replace("--b-…", "")))
    expected = {action.dest for action in parser._actions if action.option_strings} - {"help", "json", "color"}
    missing = expected - {parser._option_string_actions[flag].dest for flag in shown}
    assert {dest for dest in missing if not dest.startswith("b_")} == set()
    assert not missing or "[--b-…]…" in parser.usage


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.module == "desired.store"])
def test_the_forms_of_a_store_are_in_the_help_and_not_in_the_usage(vethctl: Vethctl, name: str) -> None:
    said = vethctl(name, "--help")
    usage, _, rest = said.out.partition("\n")
    assert "--store URL" in usage
    assert len(usage) <= 100
    assert "dir:PATH or" in rest
    assert "etcd://[USER[:PASSWORD]@]HOST:PORT[,HOST:PORT…]" in vethctl("put", "--help").out


def test_a_usage_error_is_raised_with_all_that_is_known() -> None:
    with pytest.raises(UsageError) as raised:
        parse(["validate"])
    assert (raised.value.field, raised.value.hint) == (
        "PATH",
        "usage: vethctl validate PATH… [--strict] [--limit NAME=VALUE]…",
    )


def test_a_trial_neither_waits_nor_takes_no_time(vethctl: Vethctl, tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text("[]")
    for more in (["--try", "0"], ["--try", "1s", "--timeout", "1s"]):
        said = vethctl("apply", str(tmp_path), *more, "--json")
        assert (said.code, said.out, said.error["field"], said.error["code"]) == (1, "", "--try", "usage")


PAIR = str(Path(__file__).parents[2] / "examples/pair")


@pytest.mark.parametrize(
    "argv",
    [
        ["graph", PAIR, "--offline", "--svg"],
        ["graph", PAIR, "--offline", "--dot"],
        ["graph", PAIR, "--offline", "--mermaid"],
        ["dump", "--store", f"dir:{PAIR}", "--table"],
        ["completion", "bash"],
    ],
    ids=lambda argv: " ".join([argv[0], argv[-1]]),
)
def test_a_flag_for_another_form_wins_over_the_variable_for_json_but_not_over_its_flag(
    vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch, argv: list[str]
) -> None:
    plain = vethctl(*argv).out
    as_json = vethctl(*argv, "--json").out
    assert json.loads(as_json)
    assert not plain.startswith(("{", "["))
    monkeypatch.setenv("VETHLIB_JSON", "1")
    assert vethctl(*argv).out == plain
    assert vethctl(*argv, "--json").out == as_json


@pytest.mark.parametrize(
    ("variables", "argv", "expected"),
    [
        ({}, [], False),
        ({"JSON": "1"}, [], True),
        ({"JSON": "1"}, ["--log", "text"], False),
        ({"JSON": "1", "LOG": "text"}, [], True),
        ({"LOG": "json"}, ["--log", "text"], False),
        ({}, ["--json", "--log=text"], True),
    ],
)
def test_the_log_of_an_agent_has_the_form_of_its_flag(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], argv: list[str], expected: bool
) -> None:
    for name, text in variables.items():
        monkeypatch.setenv(f"VETHLIB_{name}", text)
    assert json_wins(parse(["agent", *argv]), "log") is expected
