"""What vethctl meets on a host beside the kernel: Python packages, its own environment variables, agents and a store.

For doctor, which says what is missing; nothing here is needed to create a pair.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

from vethlib.errors import VethError

from .arguments import COMMANDS
from .arguments.shared import add_common
from .parser import Parser, UsageError
from .states import age_of
from .text import counted

if TYPE_CHECKING:
    from vethlib.agent.stores.agentfile import Said

__all__ = ["Finding", "agents", "agents_here", "packages", "store", "variables"]

_STATUS = Path("/run/vethlib")

# By what is imported: the package, what for, what to install; whether a part that is no extra needs it.
_PACKAGES = (
    ("google.protobuf", "protobuf", "reads configuration: agent, apply, put, status", "vethlib", True),
    ("inotify_simple", "inotify_simple", "follows files: agent, status --watch", "vethlib", True),
    ("pyroute2", "pyroute2", "decodes in full: show -d, VETHLIB_DEBUG=nl", "vethlib", False),
    ("grpc", "grpcio", "speaks to etcd: --store etcd://", "vethlib[etcd]", False),
    ("docker", "docker", "speaks to the Docker Engine: microservices", "vethlib[docker]", False),
    ("prometheus_client", "prometheus-client", "serves metrics: agent --metrics", "vethlib[metrics]", False),
)
_DEBUG = ("nl", "traceback")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `needed` says whether the main job fails without it."""

    what: str
    ok: bool
    detail: str
    cure: str = ""
    needed: bool = True


def packages() -> Iterator[Finding]:
    """What Python has to import."""
    for module, package, purpose, install, needed in _PACKAGES:
        found = _is_there(module)
        version = _version(package)
        detail = f"{purpose} ({version})" if found else f"{package} is not installed: it {purpose}"
        yield Finding(package, found, detail, f"pip install '{install}'", needed)


def _is_there(module: str) -> bool:
    try:
        return util.find_spec(module) is not None
    except ImportError:  # of the package that it is in
        return False


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "without metadata"


def variables() -> Iterator[Finding]:
    """The VETHLIB_* of the environment: those that mean nothing, and those whose value is refused."""
    given = sorted(name for name in os.environ if name.startswith("VETHLIB_"))
    if not given:
        return
    flags, wrong = _flags()
    for name in given:
        flag = f"--{name.removeprefix('VETHLIB_').replace('_', '-').lower()}"
        if name in wrong:
            yield Finding(name, False, wrong[name], f"unset {name}, or mend it", needed=False)
        elif name == "VETHLIB_DEBUG":
            unknown = [word for word in os.environ[name].split(",") if word and word not in _DEBUG]
            detail = f"{', '.join(unknown)} is not known" if unknown else "is set: there is more on stderr"
            yield Finding(name, not unknown, detail, f"write {' or '.join(_DEBUG)}, or both with a ','", needed=False)
        elif flag in flags:
            yield Finding(name, True, f"stands for {flag}", needed=False)
        else:
            from difflib import get_close_matches

            known = [one.removeprefix("--").replace("-", "_").upper() for one in flags]
            near = get_close_matches(name.removeprefix("VETHLIB_"), [*known, "DEBUG"], n=1)
            cure = f"did you mean VETHLIB_{near[0]}?" if near else f"unset {name}: see vethctl COMMAND --help"
            yield Finding(name, False, f"means nothing: no command has the flag {flag}", cure, needed=False)


def _flags() -> tuple[set[str], dict[str, str]]:
    """The long flags of all commands, and by its variable what is wrong with the value of one."""
    flags: set[str] = set()
    wrong: dict[str, str] = {}
    for command in COMMANDS.values():
        parser = Parser(command.usage, command.summary, command.more)
        try:
            add_common(parser)
            command.add_arguments(parser)
        except UsageError as error:
            wrong[error.field] = str(error).removeprefix(f"{error.field} ")
        flags |= set(parser.flags)
    return flags, wrong


def agents_here() -> Iterator[tuple[str, int, Said | None]]:
    """The label, the process and what it says of itself, of each of those agents."""
    from vethlib.agent.instance import running, status_directory
    from vethlib.agent.mark import check_label
    from vethlib.agent.stores.agentfile import read_said

    for label in sorted(os.listdir(_STATUS)) if _STATUS.is_dir() else ():
        try:
            pid = running(check_label(label))
        except VethError:
            continue  # others may have a directory there, too
        if pid is not None:
            yield label, pid, read_said(status_directory(label))


def agents() -> Iterator[Finding]:
    """The agents that run on this host, as far as they write their status where it is looked for."""
    for label, pid, said in agents_here():
        detail = f"process {pid}" + ("" if said is None else f" follows {said.store}")
        if said is not None and said.outage:
            detail += f", which has been down for {age_of(said.outage_since)}: {said.outage}"
        cure = "mend the store; the host stays as it is meanwhile"
        yield Finding(f"agent {label}", said is None or not said.outage, detail, cure, needed=False)


def store() -> Iterator[Finding]:
    """The store that VETHLIB_STORE names, for the label that commands would take."""
    url = os.environ.get("VETHLIB_STORE")
    if not url:
        return
    from vethlib.agent.stores.opening import open_editor, shown

    label = os.environ.get("VETHLIB_LABEL") or os.environ.get("MICROSERVICE_LABEL") or "vpp1"
    try:
        values = open_editor(url, label=label).values()
    except VethError as error:
        yield Finding("store", False, str(error), "start or mend it, or name another in VETHLIB_STORE", needed=False)
        return
    bad = sorted(name for name, one in values.items() if one.interface is None)
    detail = f"{shown(url)} has {counted(len(values), 'interface')} for the label {label}"
    if bad:
        detail += f", of which {counted(len(bad), 'value')} cannot be used: {', '.join(bad)}"
    yield Finding("store", not bad, detail, "see what is wrong: vethctl list", needed=False)
