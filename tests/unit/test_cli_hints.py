"""Suggestions for an unknown command, flag or name; nothing that makes changes is suggested for a harmless word."""

from __future__ import annotations

import re

import pytest

from tests.commands import Vethctl
from vethlib.cli.arguments import COMMANDS, parser_of
from vethlib.cli.arguments.hints import VERBS, distance, near, no_such_command, no_such_flag

ALTERING = {name for name, command in COMMANDS.items() if command.alters}


def meant(given: str) -> set[str]:
    """Return the commands that are suggested for a word."""
    message = no_such_command(given, COMMANDS)
    asked = message.partition("; did you mean ")[2].removesuffix("?")
    return set(re.findall(r"[\w-]+", re.sub(r"\([^)]*\)", "", asked).replace(" or ", " ")))


def test_what_deletes_changes_or_replaces_is_marked_so() -> None:
    assert {"delete", "del", "move", "apply", "put"} <= ALTERING
    assert {"show", "help", "status", "list", "get", "dump", "diff", "validate", "watch"}.isdisjoint(ALTERING)


HARMLESS = """
    a able about all apple apples apply-to are ask at back bad ball bat be bed bell better big book box bug but by
    cab call can care case cat check clear close cod code come confer config configure conform connect copy cost
    count dad data date day dead deal dear deb deep delay deli delta demand dent depict deploy desk detail details
    dial did die dig dim din display doc docs dog done down draw dry dull dune edit egg end enter exit explain
    export fetch field file find fine first fix flag follow for form format found free from full game gate gave get-
    all gift give go good got grep group had hat head health hello help helpme here hint history home host hot how
    icon id if in index info init input inspect is it item job join key kind label lag last lay lease left less let
    level like line link links lint lit load local log login logs long look loop lost love made main make man many
    map mark mate maze me mean media meet mend menu met mode model moe mole moment money monitor month mood moon
    more most mouse mouth movie name near need net network new next nice node none note now off ok old on one only
    open option out output own page pair part past pat path pause peek peer pen pet pick pin ping pit place plan
    play plot pod point poll pop port post pot pout preview print probe ps pub pull pun purr push quit rate read
    ready real reap reply report rest resume review root route row say scan search see sel self send settings
    setup shell shop side sign size sleep sort spy start stat state step stop store such sum sure sync tab table
    tail take talk tap task tel tell test text then time token too tool trace try two type up url usage use user
    verify version view wait walk want was way web what when which who why with word work yes zone
"""


@pytest.mark.parametrize("change", [str, str.upper, str.capitalize])
def test_nothing_that_alters_is_suggested_for_a_harmless_word(change: type[str]) -> None:
    for word in HARMLESS.split():
        assert meant(change(word)).isdisjoint(ALTERING), word


@pytest.mark.parametrize(
    ("given", "commands"),
    [
        *(
            ("add", {"create"}),
            ("rm", {"delete", "del"}),
            ("ls", {"show", "list"}),
            ("mv", {"move"}),
            ("man", {"help"}),
        ),
        *(("aply", {"apply"}), ("delet", {"delete"}), ("deltee", {"delete"}), ("moev", {"move"}), ("agen", {"agent"})),
        *(("shwo", {"show"}), ("crate", {"create"}), ("valdate", {"validate"}), ("grpah", {"graph"}), ("gte", {"get"})),
        *(("stat", {"status", "stats"}), ("statsu", {"status", "stats"}), ("confrim", {"confirm"}), ("HLEP", {"help"})),
        *(("set", {"set"}), ("xyzzy", set()), ("", set()), ("x" * 100_000, set()), ("dle", set()), ("git", set())),
    ],
)
def test_a_slip_and_a_verb_of_another_tool_are_understood(given: str, commands: set[str]) -> None:
    assert meant(given) == commands


def test_the_table_of_verbs_names_commands_and_no_command_is_in_it() -> None:
    assert {name for names in VERBS.values() for name in names} <= COMMANDS.keys()
    assert VERBS.keys().isdisjoint(COMMANDS)
    assert all(word == word.lower() for word in VERBS)


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        *(
            ("--prun", "--prune"),
            ("--lable", "--label"),
            ("--dryrun", "--dry-run"),
            ("--jsn", "--json"),
            ("-j", "--json"),
        ),
        *(("-n", ""), ("-x", ""), ("--", ""), ("--prone", ""), ("--name", ""), ("--verbose", ""), ("-label", "")),
    ],
)
def test_a_flag_is_suggested_for_a_slip_and_none_for_another_flag(given: str, flag: str) -> None:
    message = no_such_flag(given, parser_of("apply").flags)
    assert message.endswith(f"; did you mean {flag}?") if flag else "did you mean" not in message


def test_near_names_come_in_their_order_and_are_few() -> None:
    names = ["veth1", "veth2", "uplink", "veth10", *(f"other{number}" for number in range(2000))]
    assert near("vteh1", names) == ["veth1"]
    assert set(near("veth", names, most=3)) == {"veth1", "veth2"}
    assert near("zzz", names, most=3) == []
    assert near("x" * 100_000, names) == []


@pytest.mark.parametrize(
    ("a", "b", "steps"), [("", "", 0), ("", "ab", 2), ("ab", "ba", 1), ("show", "shw", 1), ("more", "move", 1)]
)
def test_steps_between_words(a: str, b: str, steps: int) -> None:
    assert distance(a, b) == distance(b, a) == steps


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_is_what_its_flag_prints(vethctl: Vethctl, name: str) -> None:
    said = vethctl("help", name)
    assert (said.code, said.err) == (0, "")
    assert said.out == vethctl(name, "--help").out


def test_help_alone_is_the_overview_and_of_nothing_is_an_error(vethctl: Vethctl) -> None:
    assert vethctl("help").out.splitlines()[1:] == vethctl("--help").out.splitlines()[1:]
    said = vethctl("help", "aply", "--json")
    assert (said.code, said.error["field"]) == (1, "COMMAND")
    assert vethctl("help", "show", "--json").json["help"].startswith("usage: vethctl show ")


def test_netns_alone_lists(vethctl: Vethctl) -> None:
    assert vethctl("netns") == vethctl("netns", "list")
    assert vethctl("netns", "add", "--json").error["field"] == "NAME"
