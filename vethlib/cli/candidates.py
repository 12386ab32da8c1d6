"""Names that are there now, for the shell to offer: links, namespaces, interfaces, labels, stores.

Only what can be had at once: what takes longer than :data:`PATIENCE` is not offered. Nothing here raises; what cannot
be read has no names. What the shell knows better itself, files, it is asked for.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

from vethlib import ns
from vethlib.errors import VethError
from vethlib.session import Session

__all__ = ["DIRECTORIES", "FILES", "PATIENCE", "candidates"]

PATIENCE = 0.5  # seconds
FILES, DIRECTORIES = ":files", ":directories"
"""What the shell is to offer itself."""

_RUN = "/run/vethlib"  # status_directory() in agent/instance.py, which costs the import of protobuf

Named = Iterator[tuple[str, str]]  # a candidate, and what is said of it


def candidates(kind: str, beginning: str, given: Mapping[str, Any]) -> Named:
    """What there is of a kind; more than begins with `beginning`, maybe. `given` is what the command line has said."""
    found = _KINDS.get(kind)
    return iter(()) if found is None else found(beginning, given)


def _links(beginning: str, _given: Mapping[str, Any]) -> Named:
    """LINK of this namespace, LINK@NETNS of those that have a name."""
    name, at, place = beginning.partition("@")
    with Session() as session:
        if not at:
            yield from ((link, "") for link in _names_of(session, ""))
        where = [ref for ref in ns.names() if ref.startswith(place)]
        for ref in _in_time(where):
            for link in _names_of(session, f"netns:{ref}"):
                if link.startswith(name) and (not at or link == name):
                    yield f"{link}@{ref}", ""
    if at:
        yield from ((f"{name}@{ref}", text) for ref, text in _processes(place))


def _names_of(session: Session, ref: str) -> list[str]:
    with suppress(VethError):
        return [link.name for link in session.links(netns=ref) if link.name != "lo"]
    return []


def _in_time(refs: Iterable[str]) -> Iterator[str]:
    until = time.monotonic() + PATIENCE
    for ref in refs:
        if time.monotonic() > until:
            return
        yield ref


def _targets(beginning: str, given: Mapping[str, Any]) -> Named:
    """A link, or @NETNS."""
    if not beginning.startswith("@"):
        yield from _links(beginning, given)
    if beginning[:1] in ("", "@"):
        yield from ((f"@{ref}", text) for ref, text in _namespaces(beginning[1:], given))


def _ends(beginning: str, given: Mapping[str, Any]) -> Named:
    """A link that is yet to be: only where can be told."""
    name, at, place = beginning.partition("@")
    if name and not at:
        yield f"{name}@", ""
    if at:
        yield from ((f"{name}@{ref}", text) for ref, text in _namespaces(place, given))


def _namespaces(beginning: str, _given: Mapping[str, Any]) -> Named:
    """Those that have a name; processes once that is what is being written."""
    for name in ns.names():
        yield (f"netns:{name}" if beginning.startswith("netns:") else name), "namespace"
    if beginning and "pid:".startswith(beginning):
        yield "pid:", "the namespace of a process"
    yield from _processes(beginning)


def _processes(beginning: str) -> Named:
    """pid:N of processes that are in another network namespace."""
    if not beginning.startswith("pid:"):
        return
    here = _netns_of("self")
    for process in filter(str.isdigit, os.listdir("/proc")):
        if _netns_of(process) not in (here, ""):
            with suppress(OSError), open(f"/proc/{process}/comm", errors="replace") as comm:
                yield f"pid:{process}", comm.read().strip()


def _netns_of(process: str) -> str:
    with suppress(OSError):
        return os.readlink(f"/proc/{process}/ns/net")
    return ""


def _namespace_names(_beginning: str, given: Mapping[str, Any]) -> Named:
    """Those that can be deleted; a new one has a new name."""
    if given.get("action") == "del":
        yield from ((name, "") for name in ns.names() if name not in (given.get("names") or ()))


def _interfaces(_beginning: str, given: Mapping[str, Any]) -> Named:
    """What the agent of this host has told of, and what is in the store."""
    said = set(given.get("names") or ())
    for name in {*_told(given), *_stored(given)} - said:
        yield name, ""


def _told(given: Mapping[str, Any]) -> Iterator[str]:
    directory = given.get("status_dir") or f"{_RUN}/{given.get('label')}/status"
    with suppress(OSError):
        for entry in os.listdir(directory):
            if entry.endswith(".json") and not entry.startswith("."):
                yield unquote(entry.removesuffix(".json"))  # as status_file() in agent/stores/statuses.py quotes it


def _stored(given: Mapping[str, Any]) -> Iterator[str]:
    kind, _, rest = (given.get("store") or "").partition(":")
    if kind == "dir":
        with suppress(OSError):
            for entry in _in_time(sorted(os.listdir(rest))):
                if entry.endswith(".json"):
                    yield from _named_in(os.path.join(rest, entry))
    elif kind == "etcd":
        yield from _in_etcd(f"{kind}:{rest}", str(given.get("label")))


def _named_in(path: str) -> Iterator[str]:
    with suppress(OSError, ValueError, RecursionError):
        with open(path, "rb") as file:
            value = json.load(file)
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict) and isinstance(name := one.get("name"), str):
                yield name


def _in_etcd(url: str, label: str) -> list[str]:
    """The one thing here that may wait for somebody else, and then an alarm ends it."""
    from vethlib.agent.stores.opening import open_editor

    def give_up(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, 3 * PATIENCE)
    try:
        with suppress(VethError, TimeoutError):
            return [one.name for one in open_editor(url, label=label).stored() if one.name]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return []


def _labels(_beginning: str, _given: Mapping[str, Any]) -> Named:
    """Of the agents that have run on this host."""
    with suppress(OSError):
        yield from ((name, "") for name in os.listdir(_RUN))


def _stores(beginning: str, _given: Mapping[str, Any]) -> Named:
    yield "etcd://", "an etcd"
    if not beginning.startswith("dir:"):
        yield "dir:", "a directory of *.json files"
        return
    typed = beginning.removeprefix("dir:")
    head = typed[: typed.rfind("/") + 1]
    with suppress(OSError), os.scandir(os.path.expanduser(head) or ".") as entries:
        yield from ((f"dir:{head}{entry.name}/", "") for entry in entries if entry.is_dir())


def _engines(_beginning: str, _given: Mapping[str, Any]) -> Named:
    yield "unix:///var/run/docker.sock", "the Docker Engine of this host"
    yield "off", "containers are not asked for"


_KINDS: dict[str, Callable[[str, Mapping[str, Any]], Named]] = {
    "link": _links,
    "target": _targets,
    "end": _ends,
    "netns": _namespaces,
    "netns-name": _namespace_names,
    "interface": _interfaces,
    "label": _labels,
    "store": _stores,
    "engine": _engines,
    "file": lambda _beginning, _given: iter([(FILES, "")]),
    "directory": lambda _beginning, _given: iter([(DIRECTORIES, "")]),
}
