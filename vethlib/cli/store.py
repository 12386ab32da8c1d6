"""put, get, del, list and dump: the configuration in a store, as an agent reads it from there."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from vethlib.agent.files import STDIN, UnreadablePath
from vethlib.agent.jsontext import Undecodable, decode
from vethlib.agent.mark import check_label
from vethlib.agent.model import Interface
from vethlib.agent.northbound import Parsed
from vethlib.agent.stores.keys import beginning_of, begins, name_of, place_of
from vethlib.agent.stores.listtext import read_elements
from vethlib.agent.stores.opening import open_editor, shown
from vethlib.agent.stores.protocol import Edit, Editor, Stored, StoreError
from vethlib.agent.stores.texts import name_in
from vethlib.errors import InvalidValue

from . import configuration
from .exits import DONE, INVALID, REFUSED
from .output import Output
from .parser import STORES, given, no_such
from .progress import Progress
from .text import counted, natural, paint
from .where import ref_text

__all__ = ["delete", "dump", "get", "put", "table"]

_SIGNS = {"add": paint("+", "good"), "change": paint("~", "warning"), "delete": paint("-", "bad")}
_DONE = {"add": "added", "change": "changed", "delete": "deleted"}


def put(args: Namespace, output: Output) -> int:
    """Store what a file holds."""
    name = None if args.key is None else _given(args.key, args, "KEY", name_of)
    _check_not_down(args)
    with Progress() as progress:
        editor = _editor(args, progress)
        if args.no_validate:
            texts = _texts(args.file)
            _check_key(name, texts, args)
            edits, count, doubts = editor.put_text(texts), len(texts), {}
        else:
            interfaces = configuration.read([args.file], output)
            if interfaces is None:
                return INVALID
            _check_key(name, interfaces, args)
            edits, count = editor.put(*interfaces.values()), len(interfaces)
            doubts = {one: doubt for one, doubt in _doubts(editor.values()).items() if one in interfaces}
    for one, doubt in doubts.items():
        output.warning(f"{one}: {doubt}")
    _show(output, edits, count)
    return DONE


def _check_not_down(args: Namespace) -> None:
    """That no directory is made anew which an agent here has lost: it would take that for the whole of its store."""
    kind, _, path = (args.store or "").partition(":")
    if kind != "dir" or os.path.lexists(path):
        return
    from vethlib.agent.stores.opening import place

    from .surroundings import agents_here

    for label, _, said in agents_here():
        if said is not None and said.outage and said.store == place(args.store):
            raise StoreError(
                f"{args.store} is not there, and the agent with the label {label} waits for it: bring it back, "
                "or make it by hand if what it had is to go",
                path=path,
            )


def get(args: Namespace, output: Output) -> int:
    """Print what is stored, as it is stored: for one name an object, for more a list."""
    names = [_given(text, args, "NAME", place_of) for text in args.names]
    found, nameless = _stored(_editor(args))
    missing = [name for name in names if name not in found]
    if missing:
        for one in nameless:
            output.warning(_problem(one))
        _tell_missing(missing, found, args, output)
        return REFUSED
    values = [_value(_only(name, found[name])) for name in names]
    output.json(values if len(values) > 1 else values[0])
    return DONE


def _only(name: str, places: Sequence[Stored]) -> Stored:
    if len(places) > 1:
        where = " and in ".join(one.source for one in places)
        raise InvalidValue("name", name, f"configured in {where}: keep one")
    return places[0]


def _value(one: Stored) -> Any:
    try:
        return decode(one.text)
    except Undecodable as error:
        raise InvalidValue("NAME", one.name, f"{one.source}: {error}") from None


def delete(args: Namespace, output: Output) -> int:
    """Delete the interfaces of exactly these names; with --prefix, those of all names that begin so."""
    wanted = [_given(text, args, "NAME", beginning_of if args.prefix else place_of) for text in args.names]
    with Progress() as progress:
        editor = _editor(args, progress)
        names = wanted
        if args.prefix:
            names = [name for name in _stored(editor)[0] if any(begins(name, prefix) for prefix in wanted)]
        edits = editor.delete(*names)
    _show(output, edits)
    done = {edit.name for edit in edits}
    missing = [one for one in wanted if not (any(begins(name, one) for name in done) if args.prefix else one in done)]
    if not missing or args.missing_ok:
        return DONE
    if args.prefix:
        for prefix in missing:
            output.error(f"{shown(args.store)}: no interface begins with {prefix!r}", code="not-stored", field="NAME")
    else:
        _tell_missing(missing, _stored(editor)[0], args, output)
    return REFUSED


def table(args: Namespace, output: Output) -> int:
    """List what is stored, and what is wrong with it; INVALID if an agent could not use some of it."""
    values = _editor(args).values()
    doubts = _doubts(values)
    code = DONE if all(one.interface is not None for one in values.values()) else INVALID
    if output.as_json:
        output.json([_entry(values[key], doubts.get(key, "")) for key in sorted(values, key=natural)])
        return code
    if not values:
        output.remark(f"no interfaces in {shown(args.store)}")
        return DONE
    rows = [[paint(title, "heading") for title in ("NAME", "NETNS", "PEER", "ADDRESSES", "ENABLED", "PROBLEM")]]
    rows += [_row(values[key], doubts.get(key, "")) for key in sorted(values, key=natural)]
    output.table(rows)
    return code


def _row(one: Parsed, doubt: str) -> list[str]:
    interface, problem = one.interface, _problems(one, doubt)
    if interface is None:
        return [paint(one.name, "link"), "", "", "", "", paint(problem, "bad")]
    return [
        paint(one.name, "link"),
        ref_text(interface.namespace.ref),
        interface.peer_if_name,
        paint(" ".join(interface.ip_addresses), "address"),
        "yes" if interface.enabled else "no",
        paint(problem, "warning"),
    ]


def _entry(one: Parsed, doubt: str) -> dict[str, object]:
    interface = one.interface
    entry: dict[str, object] = {"name": one.name, "valid": interface is not None}
    if interface is None:
        entry |= {"netns": None, "peer": None, "addresses": None, "enabled": None}
    else:
        entry |= {
            "netns": interface.namespace.ref,
            "peer": interface.peer_if_name,
            "addresses": list(interface.ip_addresses),
            "enabled": interface.enabled,
        }
    return entry | {"problem": _problems(one, doubt), "source": one.source}


def _problems(one: Parsed, doubt: str) -> str:
    """Everything that is wrong or hardly meant, in words."""
    return "; ".join([*map(str, one.problems), *([doubt] if doubt else []), *one.warnings])


def dump(args: Namespace, output: Output) -> int:
    """Print everything, as a list that put takes; with --table for people, and what put would not take, too."""
    stored = _editor(args).stored()
    if args.table and not output.as_json:
        _show_stored(output, stored, args)
        return DONE
    output.json([decode(one.text) for one in stored if _can_be_put(one)])
    broken = [one for one in stored if not _can_be_put(one)]
    for one in broken:
        output.error(f"not in the dump: {_problem(one)}", code="invalid-value")
    return INVALID if broken else DONE


def _can_be_put(one: Stored) -> bool:
    return one.problem is None and one.name != ""


def _show_stored(output: Output, stored: Sequence[Stored], args: Namespace) -> None:
    """A line for each value, with where it stands."""
    if not stored:
        output.remark(f"no interfaces in {shown(args.store)}")
        return
    rows = [[paint(title, "heading") for title in ("NAME", "SOURCE", "VALUE")]]
    for one in sorted(stored, key=lambda one: natural(one.name)):
        try:
            value = json.dumps(decode(one.text), ensure_ascii=False)
        except Undecodable as error:
            value = paint(str(error), "bad")
        rows.append([paint(one.name, "link"), paint(one.source, "faint"), value])
    output.table(rows)


def _editor(args: Namespace, progress: Progress | None = None) -> Editor:
    check_label(args.label, "--label")
    return open_editor(given(args.store, "--store", STORES), label=args.label, progress=progress)


def _given(text: str, args: Namespace, field: str, read: Callable[[str, str, str], str]) -> str:
    """What a name or a full key means."""
    name = read(text, args.label, field)
    if not name:
        raise InvalidValue(field, text, "name an interface")
    return name


def _texts(path: str) -> dict[str, str]:
    """The JSON objects of a file by their names, otherwise unread."""
    try:
        text, found = read_elements(sys.stdin.buffer.read() if path == STDIN else Path(path).read_bytes())
    except Undecodable as error:
        raise InvalidValue("FILE", path, str(error)) from None
    except OSError as error:
        raise UnreadablePath(path, error.strerror or str(error), error.errno) from error
    texts: dict[str, str] = {}
    for one in found:
        name = name_in(one.value)
        where = "" if one.number is None else f"element {one.number}: "
        if not name:
            raise InvalidValue("FILE", path, f"{where}write an object with a name")
        if name in texts:
            raise InvalidValue("FILE", path, f"{where}{name!r} was there before: keep one")
        texts[name] = text[one.start : one.end]
    return texts


def _check_key(name: str | None, found: Iterable[str], args: Namespace) -> None:
    """That a file for one key holds the value of that key, and nothing else."""
    names = list(found)
    if name is None or names == [name]:
        return
    if len(names) != 1:
        cure = f"holds {counted(len(names), 'interface')}: give one for {name}, or no KEY for all of them"
        raise InvalidValue("FILE", args.file, cure)
    raise InvalidValue("name", names[0], f"the key is for {name!r}: name and key have to agree")


def _stored(editor: Editor) -> tuple[dict[str, list[Stored]], list[Stored]]:
    """What is stored by name, and what has none."""
    found: dict[str, list[Stored]] = {}
    nameless: list[Stored] = []
    for one in editor.stored():
        if one.name:
            found.setdefault(one.name, []).append(one)
        else:
            nameless.append(one)
    return found, nameless


def _problem(one: Stored) -> str:
    return f"{one.source}: {one.problem or 'no interface: write an object with a name'}"


def _tell_missing(missing: Iterable[str], known: Iterable[str], args: Namespace, output: Output) -> None:
    store = shown(args.store)
    hint = f"see what is there: vethctl list --store {quote(store)}"
    for name in missing:
        message = f"{store}: {no_such('interface', name, known)}"
        output.error(message, code="not-stored", field="NAME", hint=hint)


def _doubts(values: Mapping[str, Parsed]) -> dict[str, str]:
    """What the valid ones would still lack, were they all that there is."""
    interfaces: dict[str, Interface] = {key: one.interface for key, one in values.items() if one.interface is not None}
    return configuration.doubts(interfaces)


def _show(output: Output, edits: Sequence[Edit], unchanged: int = 0) -> None:
    for edit in edits:
        if edit.made:
            output.warning(f"{edit.made} was not there: it was made")
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
        output.line(f"{paint('nothing to change', 'good')}: {counted(unchanged, 'interface')} stored just so")
