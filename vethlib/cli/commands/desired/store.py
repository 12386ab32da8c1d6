"""put, get, del, list and dump: the configuration in a store."""

from __future__ import annotations

import json
import math
import os
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from shlex import quote
from typing import Any, NamedTuple

from vethlib._trusted import who_else_writes
from vethlib.agent.config.files import UnreadablePath, contents
from vethlib.agent.config.jsontext import Stray, Undecodable, decode
from vethlib.agent.config.mark import check_label
from vethlib.agent.config.model import Interface
from vethlib.agent.config.northbound import Parsed
from vethlib.agent.config.textchecks import check_interface_name
from vethlib.agent.limits import Limits
from vethlib.agent.reasons import invalid_value
from vethlib.agent.state import Verdict
from vethlib.agent.stores.files.listtext import read_elements
from vethlib.agent.stores.keys import beginning_of, begins, name_of, place_of
from vethlib.agent.stores.opening import open_editor, shown
from vethlib.agent.stores.protocol import Edit, Editor, Stored, StoreError
from vethlib.agent.stores.texts import name_in
from vethlib.cli.applying import configuration
from vethlib.cli.applying.config_warnings import by_interface, report_warnings, warnings_of
from vethlib.cli.applying.limits import limits_of
from vethlib.cli.arguments.hints import none_such
from vethlib.cli.arguments.parser import STORES, given, json_wins
from vethlib.cli.render.linktext import ref_text
from vethlib.cli.term.exits import DONE, INVALID, REFUSED
from vethlib.cli.term.output import Output
from vethlib.cli.term.progress import Progress
from vethlib.cli.term.text import counted, natural, paint
from vethlib.errors import InvalidValue

__all__ = ["delete", "dump", "get", "put", "table"]

_SIGNS = {"add": paint("+", "good"), "change": paint("~", "warning"), "delete": paint("-", "bad")}
_DONE = {"add": "added", "change": "changed", "delete": "deleted"}


def put(args: Namespace, output: Output) -> int:
    """Store the interfaces of a file; return the exit code."""
    name = None if args.key is None else _given(args.key, args, "KEY", name_of)
    _check_not_down(args)
    with Progress() as progress, _named_file():
        editor = _editor(args, progress)
        if args.no_validate:
            texts = _texts(args.file, output, limits_of(args), progress)
            _check_key(name, texts, args)
            edits, count, doubts, warnings = editor.put_text(texts), len(texts), {}, []
        else:
            interfaces = configuration.read([args.file], output, limits_of(args), alone=False)
            if interfaces is None:
                return INVALID
            _check_key(name, interfaces, args)
            edits, count = editor.put(*interfaces.values()), len(interfaces)
            try:
                values = editor.values()
            except StoreError as error:  # it is stored all the same
                progress.clear()
                output.warning(f"the interfaces were not compared with the others in the store: {error}")
                values = {}
            stored, invalid = _valid(values), _invalid(values)
            doubts = {one: doubt for one, doubt in configuration.doubts(stored, invalid).items() if one in interfaces}
            warnings = [one for one in warnings_of(stored) if not interfaces.keys().isdisjoint(one.interfaces)]
    for one, doubt in doubts.items():
        output.warning(f"{one}: {doubt.reason}", reasons=doubt.reasons)
    report_warnings(output, warnings)
    _show(output, edits, count)
    if others := _who_else_writes(args.store):
        output.warning(f"{others} can write to {shown(args.store)}, and so control what its agents do")
    return DONE


@contextmanager
def _named_file() -> Iterator[None]:
    """Name the argument FILE in the error for a file that cannot be read."""
    try:
        yield
    except UnreadablePath as error:
        error.field = "FILE"
        raise


def _check_not_down(args: Namespace) -> None:
    """Refuse to create a directory that an agent here has lost: the agent would delete all pairs that are not in it."""
    kind, _, path = (args.store or "").partition(":")
    if kind != "dir" or os.path.lexists(path):
        return
    from vethlib.agent.stores.opening import place
    from vethlib.cli.host.found_agents import agents_here

    for label, _, report in agents_here():
        if report is not None and report.outage and report.store == place(args.store):
            raise StoreError(
                f"{args.store} does not exist, and the agent with the label {label} waits for it: restore it, "
                "or create it by hand if its pairs should be deleted",
                path=path,
            )


def get(args: Namespace, output: Output) -> int:
    """Print stored values unchanged: an object for one name, a list for several; return the exit code."""
    names = [_given(text, args, "NAME", place_of) for text in args.names]
    with Progress() as progress:
        values_by_name, nameless = _stored(_editor(args, progress))
    missing = [name for name in names if name not in values_by_name]
    if missing:
        for value in nameless:
            output.warning(_problem(value))
        _report_missing(missing, values_by_name, args, output)
        return REFUSED
    values = [_value(_only(name, values_by_name[name])) for name in names]
    output.json(values if len(values) > 1 else values[0])
    return DONE


def _only(name: str, places: Sequence[Stored]) -> Stored:
    if len(places) > 1:
        where = " and in ".join(stored.source for stored in places)
        raise InvalidValue("name", name, f"configured in {where}: keep one")
    return places[0]


def _value(stored: Stored) -> Any:
    try:
        value = decode(stored.text)
        _check_faithful(value, "")
    except InvalidValue as error:
        raise InvalidValue("NAME", stored.name, f"{stored.source}: {error}") from None
    return value


def delete(args: Namespace, output: Output) -> int:
    """Delete the interfaces with these names, or with --prefix, with these beginnings; return the exit code."""
    names_or_prefixes = [_given(text, args, "NAME", beginning_of if args.prefix else place_of) for text in args.names]
    with Progress() as progress:
        editor = _editor(args, progress)
        names = names_or_prefixes
        if args.prefix:
            names = [name for name in _stored(editor)[0] if any(begins(name, prefix) for prefix in names_or_prefixes)]
        edits = editor.delete(*names)
    _show(output, edits)
    done = {edit.name for edit in edits}
    missing = [
        one
        for one in names_or_prefixes
        if not (any(begins(name, one) for name in done) if args.prefix else one in done)
    ]
    if not missing or args.missing_ok:
        return DONE
    if args.prefix:
        for prefix in missing:
            output.error(
                f"{shown(args.store)}: no interface name begins with {prefix!r}", code="not-stored", field="NAME"
            )
    else:
        with progress:
            known = _stored(editor)[0]
        _report_missing(missing, known, args, output)
    return REFUSED


def table(args: Namespace, output: Output) -> int:
    """List the stored interfaces and their problems; return INVALID if a value is invalid."""
    with Progress() as progress:
        values = _editor(args, progress).values()
    missing = configuration.doubts(_valid(values), _invalid(values))
    doubts = _doubts(_valid(values), missing)
    code = DONE if all(one.interface is not None for one in values.values()) else INVALID
    if output.as_json:
        output.json([_entry(values[key], doubts.get(key, ""), missing) for key in sorted(values, key=natural)])
        return code
    if not values:
        output.remark(f"no interfaces in {shown(args.store)}")
        return DONE
    rows = [[paint(title, "heading") for title in ("NAME", "NETNS", "PEER", "ADDRESSES", "ENABLED", "PROBLEM")]]
    rows += [_row(values[key], doubts.get(key, "")) for key in sorted(values, key=natural)]
    output.table(rows)
    return code


def _row(parsed: Parsed, doubt: str) -> list[str]:
    interface, problem = parsed.interface, _problems(parsed, doubt)
    if interface is None:
        return [paint(parsed.name, "link"), "", "", "", "", paint(problem, "bad")]
    return [
        paint(parsed.name, "link"),
        ref_text(interface.namespace.ref),
        interface.peer_if_name,
        paint(" ".join(interface.ip_addresses), "address"),
        "yes" if interface.enabled else "no",
        paint(problem, "warning"),
    ]


def _entry(parsed: Parsed, doubt: str, missing: Mapping[str, Verdict]) -> dict[str, object]:
    interface = parsed.interface
    reasons = [*map(invalid_value, parsed.problems), *(missing[parsed.name].reasons if parsed.name in missing else ())]
    entry: dict[str, object] = {"name": parsed.name, "valid": interface is not None}
    if interface is None:
        entry |= {"netns": None, "peer": None, "addresses": None, "enabled": None}
    else:
        entry |= {
            "netns": interface.namespace.ref,
            "peer": interface.peer_if_name,
            "addresses": list(interface.ip_addresses),
            "enabled": interface.enabled,
        }
    entry |= {"problem": _problems(parsed, doubt), "source": parsed.source}
    return entry | {"reasons": [reason.as_dict() for reason in reasons]}


def _problems(parsed: Parsed, doubt: str) -> str:
    """Return all problems and warnings as text."""
    return "; ".join([*map(str, parsed.problems), *([doubt] if doubt else []), *parsed.warnings])


def dump(args: Namespace, output: Output) -> int:
    """Print all values as a list for put; with --table for people, including values that put would not accept."""
    with Progress() as progress:
        editor = _editor(args, progress)
        stored = editor.stored()
        values, problems = _dumped(stored, editor.values())
    if is_table := args.table and not json_wins(args, "table"):
        _show_stored(output, stored, args)
    else:
        output.json(values)
    for problem in problems:
        text = f"{problem.source}: {problem.why}"
        message = text if is_table else f"{problem.effect}: {text}"
        output.error(message, code="invalid-value", field=problem.field)
    return INVALID if problems else DONE


class _Problem(NamedTuple):
    """Why put would refuse a stored value, or accept it with --no-validate only, and the effect on the dump."""

    effect: str
    source: str
    why: str
    field: str


def _dumped(stored: Sequence[Stored], parsed: Mapping[str, Parsed]) -> tuple[list[Any], list[_Problem]]:
    count = Counter(value.name for value in stored)
    values: list[Any] = []
    problems: list[_Problem] = []
    for entry in stored:
        known = parsed.get(entry.name)
        try:
            value = _faithful(entry)
            if count[entry.name] > 1 and (known is None or known.interface is None or known.source != entry.source):
                raise InvalidValue("name", entry.name, "is also configured elsewhere: keep one")
        except InvalidValue as error:
            problems.append(_Problem("not in the dump", entry.source, str(error), error.field))
            continue
        values.append(value)
        if known is not None and known.interface is None:
            why = "; ".join(map(str, known.problems))
            effect = "in the dump, but only put --no-validate would store it"
            problems.append(_Problem(effect, entry.source, why, next((each.field for each in known.problems), "")))
    return values, problems


def _faithful(stored: Stored) -> Any:
    """Return a value that can be stored and is the same as its text. Raises InvalidValue.

    JSON has no NaN and no infinite number, but they are read, so that they make only their field invalid. Of a key that
    is given twice, only the last value would be printed.
    """
    if stored.problem is not None:
        raise stored.problem
    value = decode(stored.text)
    if not stored.name:
        raise Stray("interface", "must be an object with a name")
    check_interface_name(stored.name)
    _check_faithful(value, "")
    return value


def _check_faithful(value: Any, field: str) -> None:
    if isinstance(value, dict):
        if twice := getattr(value, "twice", ()):
            raise Stray(field or "interface", f"has {twice[0]!r} twice: keep one")
        for key, inner in value.items():
            _check_faithful(inner, f"{field}.{key}" if field else key)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _check_faithful(inner, f"{field}[{number}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidValue(field, value, "must be a number: JSON has no NaN and no infinity")


def _show_stored(output: Output, stored: Sequence[Stored], args: Namespace) -> None:
    """Print one line per value, with its source."""
    if not stored:
        output.remark(f"no interfaces in {shown(args.store)}")
        return
    rows = [[paint(title, "heading") for title in ("NAME", "SOURCE", "VALUE")]]
    for entry in sorted(stored, key=lambda entry: natural(entry.name)):
        try:
            value = json.dumps(decode(entry.text), ensure_ascii=False)
        except Undecodable as error:
            value = paint(str(error), "bad")
        rows.append([paint(entry.name, "link"), paint(entry.source, "faint"), value])
    output.table(rows)


def _editor(args: Namespace, progress: Progress) -> Editor:
    check_label(args.label, "--label")
    return open_editor(
        given(args.store, "--store", STORES), label=args.label, progress=progress, limits=limits_of(args)
    )


def _given(text: str, args: Namespace, field: str, read: Callable[[str, str, str], str]) -> str:
    """Return the name in an argument that may be a full key."""
    name = read(text, args.label, field)
    if not name:
        raise InvalidValue(field, text, "must name an interface")
    return name


def _texts(path: str, output: Output, limits: Limits, progress: Progress) -> dict[str, str]:
    """Return the JSON objects of a file or a directory by their names, without checking the rest."""
    texts: dict[str, str] = {}
    files: dict[str, str] = {}
    warnings: list[str] = []
    for source, raw in contents([path], sys.stdin, limits.file_bytes, warnings, progress):
        file = source if os.path.isdir(path) else path
        try:
            text, elements = read_elements(raw if isinstance(raw, bytes) else raw.encode(), limits)
        except Undecodable as error:
            raise InvalidValue("FILE", file, str(error)) from None
        for element in elements:
            name = name_in(element.value)
            where = "" if element.number is None else f"element {element.number}: "
            if not name:
                raise InvalidValue("FILE", file, f"{where}must be an object with a name")
            if other := files.get(name):
                of = "" if other == file else f" of that in {other}"
                raise InvalidValue("FILE", file, f"{where}{name!r} is a duplicate{of}: keep one")
            texts[name], files[name] = text[element.start : element.end], file
    progress.clear()
    for warning in warnings:
        output.warning(warning)
    return texts


def _check_key(name: str | None, found_names: Iterable[str], args: Namespace) -> None:
    """Check that a file for a key has only the value for that key."""
    names = list(found_names)
    if name is None or names == [name]:
        return
    if len(names) != 1:
        cure = (
            f"has {counted(len(names), 'interface')}, but KEY names one: "
            f"give a file with {name} alone, or leave out KEY to store all of them"
        )
        raise InvalidValue("FILE", args.file, cure)
    raise InvalidValue("name", names[0], f"must be {name!r}, the name in the key")


def _stored(editor: Editor) -> tuple[dict[str, list[Stored]], list[Stored]]:
    """Return the stored values by name, and those without a name."""
    by_name: dict[str, list[Stored]] = {}
    nameless: list[Stored] = []
    for value in editor.stored():
        if value.name:
            by_name.setdefault(value.name, []).append(value)
        else:
            nameless.append(value)
    return by_name, nameless


def _problem(stored: Stored) -> str:
    return f"{stored.source}: {stored.problem or 'must be an object with a name'}"


def _report_missing(missing: Iterable[str], known: Iterable[str], args: Namespace, output: Output) -> None:
    store = shown(args.store)
    label = f" --label {args.label}" if "label" in args.given else ""
    hint = f"to see all interfaces: vethctl list --store {quote(store)}{label}"
    for _, message in none_such("interface", missing, known):
        output.error(f"{store}: {message}", code="not-stored", field="NAME", hint=hint)


def _valid(values: Mapping[str, Parsed]) -> dict[str, Interface]:
    return {key: one.interface for key, one in values.items() if one.interface is not None}


def _invalid(values: Mapping[str, Parsed]) -> set[str]:
    return {key for key, one in values.items() if one.interface is None}


def _doubts(interfaces: Mapping[str, Interface], missing: Mapping[str, Verdict]) -> dict[str, str]:
    """Return what is missing for these interfaces alone, and warnings, by name."""
    warnings = by_interface(warnings_of(interfaces))
    return {
        name: "; ".join([*([missing[name].reason] if name in missing else []), *map(str, warnings.get(name, ()))])
        for name in missing.keys() | warnings.keys()
    }


def _who_else_writes(url: str) -> str:
    kind, _, path = url.partition(":")
    try:
        return who_else_writes(os.stat(path)) if kind == "dir" else ""
    except OSError:
        return ""


def _show(output: Output, edits: Sequence[Edit], unchanged: int = 0) -> None:
    for edit in edits:
        if edit.made:
            output.warning(f"{edit.made} did not exist and was created")
    if output.as_json:
        output.json([{"op": edit.op, "name": edit.name, "source": edit.source} for edit in edits])
        return
    for edit in edits:
        output.line(f"{_SIGNS[edit.op]} {paint(edit.name, 'link')}  {paint(edit.source, 'faint')}")
    done = ", ".join(
        f"{word} {counted(number, 'interface')}"
        for op, word in _DONE.items()
        if (number := sum(edit.op == op for edit in edits))
    )
    if done:
        output.line(f"{paint('stored', 'good')}: {done}")
    elif unchanged:
        output.line(f"{paint('nothing to change', 'good')}: {counted(unchanged, 'interface')} already stored")
