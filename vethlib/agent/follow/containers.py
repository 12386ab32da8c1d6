"""Which container answers to which microservice label: from what an engine says of each. Pure.

A container has its label from its environment (MICROSERVICE_LABEL=vnf1) or, if that says nothing, from its container
label microservice_label. It counts while it runs, paused or not.

Of two with one label the older one answers: the one that has been running longer (State.StartedAt), not the one that
was created first. So a container that starts never takes a label from one that runs; and one that is restarted has
lost it to the other, instead of taking it back at once. The engine keeps that time, through its own restarts too, so
that whoever asks, and whenever, finds the same one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

__all__ = ["CONTAINER_LABEL", "VARIABLE", "Container", "Containers", "container"]

VARIABLE, CONTAINER_LABEL = "MICROSERVICE_LABEL", "microservice_label"

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
    """From what the engine says of one (``GET /containers/ID/json``); None if it does not run, or has no label."""
    state = described["State"]
    # One that waits for its next restart is called running, too, and has no process.
    if not state.get("Running") or not state.get("Pid"):
        return None
    label = _label(described["Config"])
    if not label:
        return None
    name = described.get("Name", "").removeprefix("/") or described["Id"][:12]
    return Container(described["Id"], name, label, state["Pid"], _nanoseconds(state["StartedAt"]))


def _label(config: Mapping[str, Any]) -> str:
    for entry in config.get("Env") or ():
        name, _, text = entry.partition("=")
        if name == VARIABLE and text:
            return str(text)
    return str((config.get("Labels") or {}).get(CONTAINER_LABEL, ""))


def _nanoseconds(time: str) -> int:
    """``2024-05-04T03:02:01.5Z``, with as many digits as it takes, so that text does not sort by time."""
    match = _TIME.fullmatch(time)
    if match is None:
        raise ValueError(f"{time!r} is no time")
    second, fraction, zone = match.groups()
    return int(datetime.fromisoformat(second + zone).timestamp()) * 10**9 + int((fraction or "").ljust(9, "0"))


class Containers:
    """The running containers that have labels, by id; each call that changes something returns whom it concerns."""

    def __init__(self) -> None:
        self._by_id: dict[str, Container] = {}
        self._by_label: dict[str, list[Container]] = {}  # the older ones first

    def put(self, id_: str, container: Container | None) -> set[str]:
        """This is what the engine says of one now, None: it does not count. Returns the labels that are affected."""
        before = self._by_id.get(id_)
        if before == container:
            return set()
        if before is not None:
            del self._by_id[id_]
            others = self._by_label[before.label]
            others.remove(before)
            if not others:
                del self._by_label[before.label]
        if container is not None:
            self._by_id[id_] = container
            rivals = self._by_label.setdefault(container.label, [])
            rivals.append(container)
            rivals.sort(key=lambda one: (one.started, one.id))
        return {one.label for one in (before, container) if one is not None}

    def replace(self, containers: Iterable[Container]) -> set[str]:
        """These are all there are. Returns the labels that are affected."""
        now = {one.id: one for one in containers}
        affected: set[str] = set()
        for id_ in [*self._by_id, *now]:
            affected |= self.put(id_, now.get(id_))
        return affected

    def get(self, id_: str) -> Container | None:
        """What was said of one last; None if it did not count."""
        return self._by_id.get(id_)

    def answering(self, label: str) -> Container | None:
        """The one that `label` stands for; None if none runs."""
        rivals = self._by_label.get(label)
        return rivals[0] if rivals else None

    def remark(self, label: str) -> str:
        """Who else has the label, in words; "" for nobody."""
        rivals = self._by_label.get(label, ())
        if len(rivals) < 2:
            return ""
        first, *others = (one.name for one in rivals)
        some = f"{len(rivals)} containers are microservice {label}"
        return f"{some}: {first} is used, which runs longest, not {', '.join(others)}"

    def labels(self) -> set[str]:
        """All that stand for something."""
        return set(self._by_label)
