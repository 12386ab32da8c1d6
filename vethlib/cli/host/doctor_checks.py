"""Checks of doctor beside those of the kernel: Python packages, environment variables, agents and a store.

Creating a pair needs none of these.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util

from vethlib.cli.applying.limits import limits_of
from vethlib.cli.arguments import COMMANDS, parser_of
from vethlib.cli.arguments.hints import near
from vethlib.cli.host.found_agents import agents_here, holders, own_label
from vethlib.cli.render.states import age_of, unwritten
from vethlib.cli.term.text import counted
from vethlib.errors import InvalidValue, VethError

__all__ = ["Finding", "agents", "packages", "record", "store", "variables"]

# The imported module, its package, its purpose, what to install, and whether more than an extra needs it.
_PACKAGES = (
    ("google.protobuf", "protobuf", "reads configuration: agent, apply, put, status", "vethlib", True),
    ("inotify_simple", "inotify_simple", "follows files: agent, status --watch", "vethlib", True),
    ("pyroute2", "pyroute2", "decodes in full: show -d, VETHLIB_DEBUG=nl", "vethlib", False),
    ("grpc", "grpcio", "connects to etcd: --store etcd://", "vethlib[etcd]", False),
    ("docker", "docker", "connects to the Docker Engine: microservices", "vethlib[docker]", False),
    ("prometheus_client", "prometheus-client", "serves metrics: agent --metrics", "vethlib[metrics]", False),
)
_DEBUG = ("nl", "traceback")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check; `code` is the problem, for programs.

    `needed`: vethctl can create no pairs, or no named namespaces, or its agent does not start without it.
    """

    what: str
    ok: bool
    detail: str
    cure: str = ""
    needed: bool = True
    code: str = ""

    @property
    def problem(self) -> str:
        """The code of the problem, "" if there is none."""
        return "" if self.ok else self.code


def packages() -> Iterator[Finding]:
    """Check the Python packages."""
    for module, package, purpose, install, needed in _PACKAGES:
        is_installed = _is_installed(module)
        version = _version(package)
        detail = f"{purpose} ({version})" if is_installed else f"{package} is not installed: it {purpose}"
        yield Finding(package, is_installed, detail, f"pip install '{install}'", needed, "not-installed")


def _is_installed(module: str) -> bool:
    try:
        return util.find_spec(module) is not None
    except ImportError:  # the parent package is missing
        return False


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "without metadata"


def variables() -> Iterator[Finding]:
    """Check the variables VETHLIB_*: that each is the default of a flag, and that the flag accepts the value."""
    given = sorted(name for name in os.environ if name.startswith("VETHLIB_"))
    if not given:
        return
    known, wrong = _known_variables()
    for name in given:
        if name in wrong:
            yield Finding(name, False, wrong[name], f"correct or unset {name}", False, "invalid-value")
        elif name == "VETHLIB_DEBUG":
            unknown = [word for word in os.environ[name].split(",") if word and word not in _DEBUG]
            detail = f"unknown: {', '.join(unknown)}" if unknown else "is set: more is printed on stderr"
            cure = f"must be {' or '.join(_DEBUG)}, or both separated by a comma"
            yield Finding(name, not unknown, detail, cure, False, "invalid-value")
        elif name in known:
            yield Finding(name, True, f"is the default of {known[name]}", needed=False)
        else:
            meant = near(name.removeprefix("VETHLIB_"), [*(one.removeprefix("VETHLIB_") for one in known), "DEBUG"])
            cure = f"did you mean VETHLIB_{meant[0]}?" if meant else f"unset {name}: see vethctl COMMAND --help"
            detail = "has no effect: it is not the default of a flag"
            yield Finding(name, False, detail, cure, False, "unknown-variable")


def _known_variables() -> tuple[dict[str, str], dict[str, str]]:
    """Return the flags of all commands that have a variable, and the problems of invalid variables, both by name."""
    known: dict[str, str] = {}
    wrong: dict[str, str] = {}
    for parser in map(parser_of, COMMANDS):
        known |= parser.variables
        wrong |= parser.invalid
    try:
        limits_of(Namespace(limit=[]))
    except InvalidValue as error:
        wrong[error.field] = str(error).removeprefix(f"{error.field} ")
    return known, wrong


def agents() -> Iterator[Finding]:
    """Check the agents on this host that use the default status directory."""
    from vethlib.agent.process.rundir import status_directory

    for label, pid, report in agents_here():
        detail = f"process {pid}" + ("" if report is None else f" follows {report.store}")
        if report is not None and report.outage:
            detail += f", which has been down for {age_of(report.outage_since)}: {report.outage}"
        cure = "repair the store; until then, changes in it take no effect"
        yield Finding(f"agent {label}", report is None or not report.outage, detail, cure, False, "store-down")
        if report is not None and report.unwritten:
            cure = f"make {status_directory(label)} writable again"
            yield Finding(f"agent {label}", False, unwritten(report), cure, False, "statuses-unwritten")
    for label, holder in holders():
        if not holder.is_ours:
            detail = f"its abstract socket is held by {holder}, which is not an agent and is ignored"
            yield Finding(f"agent {label}", False, detail, "end that process", False, "socket-held")


def record() -> Iterator[Finding]:
    """Check the record of built pairs, which must be in a directory that only this user can write to."""
    from vethlib.agent.host.recordfile import RecordFile
    from vethlib.session import Session

    label = own_label()
    try:
        with Session() as session, RecordFile(session, label, read_only=True) as records:
            problem, count, path = records.problem, len(records.record), records.path
    except VethError:
        return  # reported elsewhere: there is no session, or the label is invalid
    detail = problem or (
        f"{counted(count, 'pair')} of the label {label} in {path}"
        if os.path.exists(path)
        else f"{path} does not exist yet; the first run of an agent or of apply creates it"
    )
    cure = "without it, pairs that have no end in this network namespace are forgotten when an agent ends"
    yield Finding("record of pairs", not problem, detail, cure, False, "record-unusable")


def store() -> Iterator[Finding]:
    """Check the store in VETHLIB_STORE, for the default label."""
    url = os.environ.get("VETHLIB_STORE")
    if not url:
        return
    from vethlib.agent.stores.opening import open_editor, shown
    from vethlib.agent.stores.protocol import StoreError

    label = own_label()
    try:
        values = open_editor(url, label=label, limits=limits_of(Namespace(limit=[]))).values()
    except VethError as error:
        cure = "start or repair it, or name another one in VETHLIB_STORE"
        code = str(error.code) if isinstance(error, StoreError) else "invalid-value"
        yield Finding("store", False, str(error), cure, False, code)
        return
    bad = sorted(name for name, one in values.items() if one.interface is None)
    detail = f"{shown(url)} has {counted(len(values), 'interface')} for the label {label}"
    if bad:
        detail += f", of which {counted(len(bad), 'value')} cannot be used: {', '.join(bad)}"
    yield Finding("store", not bad, detail, "show the problems: vethctl list", False, "invalid-values")
