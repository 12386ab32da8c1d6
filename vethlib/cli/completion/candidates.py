"""Existing names as candidates for completion: links, namespaces, interfaces, labels, stores.

Names that take longer than :data:`PATIENCE` to find are not offered. Nothing here raises; a source that cannot be read
has no names. Files are left to the shell.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

from vethlib import ns
from vethlib._nl.wire import from_system
from vethlib.cli.term.signals import time_limit
from vethlib.errors import VethError
from vethlib.session import Session

__all__ = ["DIRECTORIES", "FILES", "PATIENCE", "candidates"]

PATIENCE = 0.5  # seconds
FILES, DIRECTORIES = ":files", ":directories"
"""Candidates that the shell finds itself."""

_LONGEST = 4 << 20  # bytes of a file: a larger one takes too long
_RUN = "/run/vethlib"  # the same as in agent/process/rundir.py, whose import would load protobuf

Named = Iterator[tuple[str, str]]  # a candidate and its meaning


def candidates(kind: str, beginning: str, given: Mapping[str, Any]) -> Named:
    """Return names of a kind, maybe also without the `beginning`; `given` are the values on the command line."""
    find = _KINDS.get(kind)
    return iter(()) if find is None else find(beginning, given)


def _links(beginning: str, _given: Mapping[str, Any]) -> Named:
    """Yield LINK for this namespace and LINK@NETNS for named namespaces."""
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
    """Yield links and @NETNS."""
    if not beginning.startswith("@"):
        yield from _links(beginning, given)
    if beginning[:1] in ("", "@"):
        yield from ((f"@{ref}", text) for ref, text in _namespaces(beginning[1:], given))


def _ends(beginning: str, given: Mapping[str, Any]) -> Named:
    """Yield namespaces for a new link, after its name."""
    name, at, place = beginning.partition("@")
    if name and not at:
        yield f"{name}@", ""
    if at:
        yield from ((f"{name}@{ref}", text) for ref, text in _namespaces(place, given))


def _namespaces(beginning: str, _given: Mapping[str, Any]) -> Named:
    """Yield named namespaces, and processes after pid:."""
    for name in ns.names():
        yield (f"netns:{name}" if beginning.startswith("netns:") else name), "namespace"
    if beginning and "pid:".startswith(beginning):
        yield "pid:", "the namespace of a process"
    yield from _processes(beginning)


def _processes(beginning: str) -> Named:
    """Yield pid:N for processes in other network namespaces."""
    if not beginning.startswith("pid:"):
        return
    here = _netns_of("self")
    for process in filter(str.isdigit, os.listdir("/proc")):
        if _netns_of(process) not in (here, ""):
            with suppress(OSError), open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as comm:
                yield f"pid:{process}", comm.read().strip()


def _netns_of(process: str) -> str:
    with suppress(OSError):
        return os.readlink(f"/proc/{process}/ns/net")
    return ""


def _namespace_names(beginning: str, given: Mapping[str, Any]) -> Named:
    """Yield the namespaces that can be deleted or entered; for new ones, there are no candidates."""
    if given.get("action") == "exec":
        yield from _namespaces(beginning, given)
    elif given.get("action") == "del":
        yield from ((name, "") for name in ns.names() if name not in (given.get("names") or ()))


def _interfaces(_beginning: str, given: Mapping[str, Any]) -> Named:
    """Yield the interfaces of the agent of this host, and those in the store."""
    named = set(given.get("names") or ())
    for name in {*_published(given), *_stored(given)} - named:
        yield name, ""


def _published(given: Mapping[str, Any]) -> Iterator[str]:
    usual = f"{_RUN}/{given.get('label')}/status"
    with suppress(OSError):
        own = f"{usual}@{os.stat('/proc/thread-self/ns/net').st_ino}"
        directory = given.get("status_dir") or (own if os.path.isdir(own) else usual)
        for entry in os.listdir(directory):
            if entry.endswith(".json") and not entry.startswith("."):
                yield unquote(
                    from_system(entry).removesuffix(".json")
                )  # quoted as by status_file() in agent/stores/statuses.py


def _stored(given: Mapping[str, Any]) -> Iterator[str]:
    kind, _, rest = (given.get("store") or "").partition(":")
    if kind == "dir":
        import vethlib.agent.config.filecontent  # noqa: F401 - before the time is measured: on a busy host it takes as long

        with suppress(OSError):
            for entry in _in_time(sorted(os.listdir(rest))):
                if entry.endswith(".json"):
                    yield from _named_in(rest, entry)
    elif kind == "etcd":
        yield from _in_etcd(f"{kind}:{rest}", str(given.get("label")))


def _named_in(directory: str, name: str) -> Iterator[str]:
    from vethlib.agent.config.filecontent import content

    with suppress(OSError, ValueError, RecursionError):
        at = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            file = content(name, at, longest=_LONGEST)
        finally:
            os.close(at)
        value = () if file is None else json.loads(file.raw)
        for element in value if isinstance(value, list) else [value]:
            # In any letter case, as in vethlib.agent.config.spelling, whose import would cost more than all of this.
            names = (
                [text for key, text in element.items() if key.lower() == "name"] if isinstance(element, dict) else []
            )
            if len(names) == 1 and isinstance(names[0], str):
                yield names[0]


def _in_etcd(url: str, label: str) -> list[str]:
    """Read the names from an etcd: the only request to another process, limited in time."""
    from vethlib.agent.stores.opening import open_editor

    with suppress(VethError, TimeoutError), time_limit(3 * PATIENCE, TimeoutError):
        return [stored.name for stored in open_editor(url, label=label).stored() if stored.name]
    return []


def _labels(_beginning: str, _given: Mapping[str, Any]) -> Named:
    """Yield the labels of agents that have run on this host."""
    with suppress(OSError):
        # Names with an "@" are files of running agents (agent/process/claim.py).
        yield from ((name, "") for name in os.listdir(_RUN) if "@" not in name)


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
    yield "unix:///run/podman/podman.sock", "podman's service for this host (podman.socket)"
    yield "off", "no microservices"


def _programs(beginning: str, _given: Mapping[str, Any]) -> Named:
    """Yield the programs that are found without a path, and files where a path begins."""
    if "/" in beginning:
        yield FILES, ""
        return
    for directory in _in_time(os.get_exec_path()):
        with suppress(OSError), os.scandir(directory) as entries:
            yield from ((entry.name, "") for entry in entries if entry.name.startswith(beginning))


_KINDS: dict[str, Callable[[str, Mapping[str, Any]], Named]] = {
    "link": _links,
    "target": _targets,
    "end": _ends,
    "netns": _namespaces,
    "netns-name": _namespace_names,
    "program": _programs,
    "interface": _interfaces,
    "label": _labels,
    "store": _stores,
    "engine": _engines,
    "file": lambda _beginning, _given: iter([(FILES, "")]),
    "directory": lambda _beginning, _given: iter([(DIRECTORIES, "")]),
}
