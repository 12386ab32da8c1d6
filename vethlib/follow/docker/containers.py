"""Select the container of each microservice label, from the engine's descriptions. Pure.

The label of a container is in its environment (MICROSERVICE_LABEL=vnf1) or else in its container label
microservice_label. A container counts while it runs, paused or not.

If several containers have a label, the one that has been running longest is used (State.StartedAt), not the one that
was created first. So a starting container never takes the label of a running one, and a restarted container loses it to
the other instead of taking it back at once. The engine keeps this time even when it is restarted itself, so the result
is the same for everybody at any time.
"""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from vethlib.follow.resolver import LABEL_MAX

__all__ = ["CONTAINER_LABEL", "VARIABLE", "Container", "Containers", "container"]

VARIABLE, CONTAINER_LABEL = "MICROSERVICE_LABEL", "microservice_label"

_MOST_OTHERS = 8  # containers that a remark names; it is logged again for each new container

_WITH_A_PROCESS = ("running", "paused", "stopping")

_TIME = re.compile(r"(.{19})(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True)
class Container:
    """A running container that has a microservice label. `started` is in nanoseconds since 1970."""

    id: str
    name: str
    label: str
    pid: int
    started: int


def container(described: Mapping[str, Any]) -> Container | None:
    """Parse the engine's description of a container (``GET /containers/ID/json``).

    Returns None if it does not run, or has no label that an interface can name. Raises AttributeError, KeyError,
    TypeError or ValueError for anything but a description of a container.
    """
    state = described["State"]
    # A container that is paused or about to stop still has its namespace, but podman does not report it as running. A
    # container that waits for its next restart is reported as running, but has no process.
    runs = state.get("Running") or state.get("Paused") or state.get("Status") in _WITH_A_PROCESS
    pid = state.get("Pid")
    if not runs or not pid:
        return None
    if type(pid) is not int or pid < 0:
        raise ValueError(f"{pid!r} is not a process id")
    label = _label(described["Config"])
    # No interface can name a longer label; a variable may have a hundred kilobytes.
    if not label or len(label.encode(errors="surrogatepass")) > LABEL_MAX:
        return None
    name = described.get("Name", "").removeprefix("/") or described["Id"][:12]
    return Container(described["Id"], name, label, pid, _nanoseconds(state["StartedAt"]))


def _label(config: Mapping[str, Any]) -> str:
    for entry in config.get("Env") or ():
        name, _, text = entry.partition("=")
        if name == VARIABLE and text:
            return str(text)
    return str((config.get("Labels") or {}).get(CONTAINER_LABEL, ""))


def _nanoseconds(time: str) -> int:
    """Parse a time such as ``2024-05-04T03:02:01.5Z``; it has no fixed number of digits, so text is not sortable."""
    match = _TIME.fullmatch(time)
    if match is None:
        raise ValueError(f"{time!r} is not a time")
    second, fraction, zone = match.groups()
    return int(datetime.fromisoformat(second + zone).timestamp()) * 10**9 + int((fraction or "").ljust(9, "0"))


def _age(container: Container) -> tuple[int, str]:
    return container.started, container.id


class Containers:
    """The running containers with labels, by id. Each change returns the labels that it affects."""

    def __init__(self) -> None:
        self._by_id: dict[str, Container] = {}
        self._by_label: dict[str, list[Container]] = {}  # the longest running first

    def put(self, id_: str, container: Container | None) -> set[str]:
        """Set the present description of a container, None if it does not count; return the affected labels."""
        before = self._by_id.get(id_)
        if before == container:
            return set()
        if before is not None:
            del self._by_id[id_]
            others = self._by_label[before.label]
            # By bisection, since one image may be run thousands of times with one label.
            del others[bisect_left(others, _age(before), key=_age)]
            if not others:
                del self._by_label[before.label]
        if container is not None:
            self._by_id[id_] = container
            insort(self._by_label.setdefault(container.label, []), container, key=_age)
        return {changed.label for changed in (before, container) if changed is not None}

    def replace(self, containers: Iterable[Container]) -> set[str]:
        """Replace all containers; return the affected labels."""
        now = {container.id: container for container in containers}
        affected: set[str] = set()
        for id_ in [*self._by_id, *now]:
            affected |= self.put(id_, now.get(id_))
        return affected

    def get(self, id_: str) -> Container | None:
        """Return the last description of a container; None if it did not count."""
        return self._by_id.get(id_)

    def answering(self, label: str) -> Container | None:
        """Return the container of a label, or None."""
        rivals = self._by_label.get(label)
        return rivals[0] if rivals else None

    def remark(self, label: str) -> str:
        """Return a remark that names other containers with the label, or ""."""
        rivals = self._by_label.get(label, ())
        if len(rivals) < 2:
            return ""
        first, *others = (rival.name for rival in rivals)
        some = f"{len(rivals)} containers are microservice {label}"
        if (more := len(others) - _MOST_OTHERS) > 0:
            others[_MOST_OTHERS:] = [f"{more} more"]
        return f"{some}: {first} is used, which has been running longest, not {', '.join(others)}"

    def labels(self) -> set[str]:
        """Return all labels that have a container."""
        return set(self._by_label)
