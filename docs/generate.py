"""``python docs/generate.py [--check]``: writes those parts of the documentation that are made from the code.

They are kept in the repository, so that they can be read where it is; a test sees that they are as the code says:

* reference/command-line.md, and packaging/man/vethctl.1, from vethlib/cli/arguments;
* reference/northbound.md, the tables of it, from vethlib/agent/config/northbound.proto, vethlib/agent/reasons.py and
  vethlib/agent/stores/storecode.py;
* reference/limits.md, the table of it, from vethlib/agent/limits.py;
* reference/kernels.md and the table in README.md, from reference/kernels.json.

`python -m benchmarks.readme` writes the figures of the benchmarks.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vethlib.cli.arguments.command import Command
    from vethlib.cli.arguments.parser import Parser

HERE = Path(__file__).parent
ROOT = HERE.parent
_MARKS = "<!-- {}: made by docs/generate.py -->", "<!-- end of {} -->"


def main() -> int:
    """Write what is different, or with --check only say so; 1, if something was."""
    check = "--check" in sys.argv
    changed = [(path, text) for path, text in pages() if not path.exists() or path.read_text() != text]
    for path, text in changed:
        print(
            f"{path.relative_to(ROOT)} {'is not what the code says: python docs/generate.py' if check else 'written'}"
        )
        if not check:
            path.write_text(text)
    return 1 if check and changed else 0


def pages() -> Iterator[tuple[Path, str]]:
    """Each page that has something of this, as it should be."""
    yield HERE / "reference/command-line.md", command_line()
    yield ROOT / "packaging/man/vethctl.1", man_page()
    northbound = HERE / "reference/northbound.md"
    page = _put("fields", fields((ROOT / "vethlib/agent/config/northbound.proto").read_text()), northbound.read_text())
    yield northbound, _put("store codes", store_codes(), _put("reasons", reasons(), page))
    known = HERE / "reference/limits.md"
    yield known, _put("limits", limits(), known.read_text())
    yield from _kernel_pages()


def _kernel_pages() -> Iterator[tuple[Path, str]]:
    sys.path.insert(0, str(ROOT))
    from scripts.kernels import record

    recorded = json.loads(record.RECORD.read_text())
    for page, text in (
        (HERE / "reference/kernels.md", record.details(recorded)),
        (ROOT / "README.md", record.summary(recorded)),
    ):
        yield page, _put("kernels", text, page.read_text())


def _put(name: str, text: str, page: str) -> str:
    begin, end = (mark.format(name) for mark in _MARKS)
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{text}{end}{after}"


_COMMAND_LINE = """\
# The command line

`vethctl COMMAND [ARGUMENT…]`; `python -m vethlib` does the same. `vethctl COMMAND --help` shows the sections of this
page, which is generated from vethlib/cli/arguments.

- Every command takes `--json`, which turns results and errors into JSON, and `--color`, as `ip` does.
- After `--`, no word is a flag: `vethctl show -- -x` shows a link called `-x`.
- Some flags take their default from a variable, [listed below](#variables). A flag on the command line wins.
- NETNS is a name (`ns1`, `netns:ns1`), `pid:42`, `path:/proc/42/ns/net` or `fd:7`; the default is this namespace.
- LINK@NETNS is a link in a namespace. A link in this namespace whose own name contains an `@` is found by its whole
  name, unless a namespace has the name that follows the `@`; in that case, append another `@`.
- PATH is a JSON file with one interface or a list, a directory of `*.json` files, or `-` for stdin.

| exit code | |
|---|---|
| 0 | done; `diff`: no difference |
| 1 | usage or invalid configuration; `diff`: different |
| 2 | refused by the kernel or by a store |
| 3 | applied, but something is pending |
| 4 | tried and undone (`apply --try`) |

If nobody reads the output any more (`vethctl diff PATH | head -1`), the rest is discarded, and the exit code stays the
same. Only commands that print until they are stopped, such as `watch`, end at that point, with exit code 0.

"""


_ABOUT_VARIABLES = """\
All flags of `agent` have an environment variable. So do flags that describe the environment, such as where the store
is, and flags that set how `apply`, `diff` and `validate` work, how long a command waits, or how results are shown.
Flags that choose an object, or give it a value, have none: a variable that is set for another purpose, as by a
[hook](../how-to/notify.md), must not rename a link.

A flag without a value is set by `1`, `true`, `yes` or `on`. No flag can then unset it: unset the variable instead. But
a flag for another form (`graph --svg`, `dump --table`, `agent --log text`) wins over `VETHLIB_JSON`, and `completion`
ignores it. An empty variable counts as not set. `VETHLIB_HOOK` has one hook per line, and `VETHLIB_LIMIT` a list
separated by commas. `MICROSERVICE_LABEL` is used for `--label` if `VETHLIB_LABEL` is not set, except by `top`.
`VETHLIB_DEBUG` is not the default of a flag: `nl` prints every netlink message, `traceback` the traceback of an
unexpected error. `vethctl doctor` reports variables that have no effect."""


def command_line() -> str:
    """All commands, in the order of `vethctl --help`."""
    commands = list(_commands())
    sections = [f"[{name}](#{name})" for name, _, _ in commands]
    text = _COMMAND_LINE + " · ".join(sections) + "\n"
    text += f"\n## Variables\n\n{_ABOUT_VARIABLES}\n\n| variable | flag | of |\n|---|---|---|\n"
    for variable, (flag, owners) in _variables(commands).items():
        text += f"| `{variable}` | `{flag}` | {', '.join(owners)} |\n"
    for name, command, parser in commands:
        text += f"\n## {name}\n\n{command.summary[0].upper()}{command.summary[1:]}.\n"
        text += f"\n```text\nvethctl {command.usage}\n```\n"
        rows = list(_rows(parser))
        if rows:
            text += "\n| argument | |\n|---|---|\n" + "".join(itertools.starmap(_row, rows))
        if command.more:
            text += f"\n```text\n{command.more.strip()}\n```\n"
    return text


def _variables(commands: list[tuple[str, Command, Parser]]) -> dict[str, tuple[str, list[str]]]:
    """The flag of each variable, and the commands that have it."""
    from vethlib.cli.arguments.parser import Parser
    from vethlib.cli.arguments.shared import add_common

    common = Parser("", "", "")
    add_common(common)
    variables = {name: (flag, ["all commands"]) for name, flag in common.variables.items()}
    for command, _, parser in commands:
        for name, flag in parser.variables.items():
            variables.setdefault(name, (flag, []))[1].append(command)
    return dict(sorted(variables.items()))


def _commands() -> Iterator[tuple[str, Command, Parser]]:
    """The name, the entry and the parser of each command, as they are where the environment says nothing."""
    for name in [name for name in os.environ if name.startswith("VETHLIB_") or name == "MICROSERVICE_LABEL"]:
        del os.environ[name]  # they would show as defaults

    from vethlib.cli.arguments import COMMANDS
    from vethlib.cli.arguments.parser import Parser

    for name, command in COMMANDS.items():
        parser = Parser(command.usage, command.summary, command.more)
        command.add_arguments(parser)
        yield name, command, parser


def _row(shown: list[str], says: str) -> str:
    cells = ", ".join(f"`{one}`" for one in shown), says
    return "| {} | {} |\n".format(*(cell.replace("|", "\\|") for cell in cells))


def _rows(parser: argparse.ArgumentParser) -> Iterator[tuple[list[str], str]]:
    """How each argument is written, in all its ways, and what it does."""
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction) or action.help == argparse.SUPPRESS:
            continue
        value = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        names = action.option_strings
        shown = [f"{one} {value}" if one.startswith("--") and action.nargs != 0 else one for one in names] or [value]
        if names and action.nargs != 0 and not any(one.startswith("--") for one in names):
            shown = [f"{one} {value}" for one in names]
        says = (action.help or "") % {"default": action.default}
        yield shown, says


_MAN = """\
.\\" Made by docs/generate.py from vethlib/cli/arguments.
.TH VETHCTL 1 "" "vethlib {version}" "User Commands"
.SH NAME
vethctl \\- wire Linux network namespaces together with veth pairs
.SH SYNOPSIS
.B vethctl
.I COMMAND
[\\fIARGUMENT\\fR]...
.SH DESCRIPTION
Creates, shows and maintains veth pairs between network namespaces over raw rtnetlink: single pairs, those configured in
files, or, as an agent, those configured in a directory or an etcd.
.PP
\\fINETNS\\fR is a name (ns1, netns:ns1), pid:42, path:/proc/42/ns/net or fd:7; the default is this namespace.
\\fIPATH\\fR is a JSON file, a directory of *.json files, or \\- for stdin.
.PP
Every command takes \\fB\\-\\-json\\fR, which turns results and errors into JSON, and
\\fB\\-\\-color\\fR[=auto|always|never]. After \\-\\-, no word is a flag.
.SH COMMANDS
"""
_MAN_END = """\
.SH EXIT STATUS
0 done; 1 usage or invalid configuration; 2 refused by the kernel or a store; 3 applied, but something is
pending; 4 tried and undone (apply \\-\\-try).
.B vethctl diff
exits with 0 if there is no difference, and with 1 otherwise.
A reader that leaves early does not change the status.
.SH ENVIRONMENT
Some flags take their default from a variable: VETHLIB_LABEL for \\-\\-label, VETHLIB_ONCE=1 for \\-\\-once. These are
{variables}.
A flag on the command line wins. VETHLIB_HOOK has one hook per line, VETHLIB_LIMIT a list separated by commas.
MICROSERVICE_LABEL is the default of \\-\\-label. NO_COLOR turns colours off.
VETHLIB_DEBUG=nl prints every decoded netlink message on stderr;
VETHLIB_DEBUG=traceback prints the traceback of an unexpected error.
.SH FILES
.TP
/run/netns
named namespaces, as created by ip\\-netns(8)
.TP
/run/vethlib/LABEL/status
statuses of the interfaces, written by the agent of the label
.SH SEE ALSO
ip\\-link(8), ip\\-netns(8), veth(4), network_namespaces(7)
"""


def man_page() -> str:
    """vethctl(1), in the language of man(7)."""
    from vethlib import __version__

    text = _MAN.format(version=__version__)
    commands = list(_commands())
    for name, command, parser in commands:
        text += f".SS {name}\n.B vethctl {_roff(command.usage)}\n.PP\n"
        text += f"{_roff(command.summary[0].upper() + command.summary[1:])}.\n"
        for shown, says in _rows(parser):
            text += f".TP\n.B {_roff(', '.join(shown))}\n{_roff(says)}\n"
        if command.more:
            text += f".PP\n.nf\n{_roff(command.more.strip())}\n.fi\n"
    return text + _MAN_END.format(variables=", ".join(_variables(commands)))


def _roff(text: str) -> str:
    """Text that roff prints as it is: a hyphen would be one of typography, a dot or an apostrophe begin a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


_JSON = {"string": "string", "bool": "boolean", "uint32": "number"}


def fields(proto: str) -> str:
    """A table for each message and each enumeration, from the comments above the fields."""
    text = ""
    for kind, name, body in re.findall(r"^(message|enum) (\w+) \{\n(.*?)^\}", proto, re.DOTALL | re.MULTILINE):
        text += f"\n### {name}\n\n"
        text += "| key | value | |\n|---|---|---|\n" if kind == "message" else "| number | name |\n|---:|---|\n"
        comment: list[str] = []
        for line in map(str.strip, body.splitlines()):
            if line.startswith("//"):
                comment.append(line.removeprefix("//").strip())
                continue
            if kind == "enum" and (found := re.fullmatch(r"(\w+) = (\d+);", line)):
                text += f"| {found[2]} | {found[1]} |\n"
            elif found := re.fullmatch(r"(?:optional )?(repeated )?(\w+) (\w+) = \d+;", line):
                kind_of_value = _JSON.get(found[2], f"[{found[2]}](#{found[2].lower()})")
                if found[1]:
                    kind_of_value = f"list of {kind_of_value}s"
                text += f"| `{found[3]}` | {kind_of_value} | {' '.join(comment)} |\n"
            elif found := re.fullmatch(r"map<string, (\w+)> (\w+) = \d+;", line):
                text += f"| `{found[2]}` | object of {_JSON[found[1]]}s | {' '.join(comment)} |\n"
            elif line and not re.fullmatch(r"oneof \w+ \{|\}|reserved .*;", line):
                raise ValueError(f"a field that is not understood: {line}")
            comment = []
    return text.lstrip("\n") + "\n"


def limits() -> str:
    """Return a table with one row for each limit of an agent."""
    from vethlib.agent.limits import describe_limits

    rows = "".join(f"| `{name}` | {default} | {text} |\n" for name, default, text in describe_limits())
    return f"| limit | default | |\n|---|---:|---|\n{rows}"


def reasons() -> str:
    """Return a table with one row for each code of a reason."""
    from vethlib.agent.reasons import WARNINGS, ReasonCode

    codes = [code for code in ReasonCode if code not in WARNINGS]
    rows = "".join(f"| `{code}` | {code.subject} | {code.meaning} |\n" for code in codes)
    warnings = "".join(f"| `{code}` | {code.meaning} |\n" for code in WARNINGS)
    return f"| code | about | |\n|---|---|---|\n{rows}\n| warning_code | |\n|---|---|\n{warnings}"


def store_codes() -> str:
    """Return a table with one row for each code of an outage."""
    from vethlib.agent.stores.storecode import StoreCode

    rows = "".join(f"| `{code}` | {code.meaning} |\n" for code in StoreCode)
    return f"| code | |\n|---|---|\n{rows}"


if __name__ == "__main__":
    sys.exit(main())
