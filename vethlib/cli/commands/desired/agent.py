"""agent: keep this host in the state described by a store, until stopped."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, TextIO

from vethlib import ns
from vethlib.agent.config.mark import check_label
from vethlib.agent.hooks import Hooks
from vethlib.agent.limits import Limits
from vethlib.agent.process.descriptors import raise_limit
from vethlib.agent.process.instance import Instance
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.agent.run.service import Service, summary
from vethlib.agent.state import State
from vethlib.agent.stores.agentfile import AgentFile
from vethlib.agent.stores.directories import absolute
from vethlib.agent.stores.opening import open_store, place
from vethlib.agent.stores.protocol import Store
from vethlib.agent.stores.statusdirectory import StatusDirectory
from vethlib.cli.applying.limits import limits_of
from vethlib.cli.arguments.parser import STORES, UsageError, given, json_wins
from vethlib.cli.term.crash import with_tracebacks
from vethlib.cli.term.exits import DONE, PENDING, REFUSED
from vethlib.cli.term.logwriter import LogHandler, Sparse
from vethlib.cli.term.output import Output
from vethlib.cli.term.signals import unblocked, until_stopped
from vethlib.cli.term.text import printable
from vethlib.errors import InvalidValue, VethError
from vethlib.follow.docker.engine import socket_path
from vethlib.follow.docker.resolver import DockerResolver
from vethlib.follow.resolver import MemoryResolver
from vethlib.ns.descriptor import HERE
from vethlib.ns.opening import shown_identity
from vethlib.session import Session
from vethlib.session.core.ipv6 import lacks_ipv6
from vethlib.session.core.refusal import system_errors
from vethlib.text import cut

if TYPE_CHECKING:
    from vethlib.agent.metrics import Endpoint

__all__ = ["agent"]

_MOST = 16_384  # characters of a message, which may contain foreign text; those about one interface are shorter

# Levels and their priorities in the journal (sd-daemon(3)), the most severe first
_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))

_GRACE = 1.0  # seconds to write the last lines of the log
_PATIENCE = 5.0  # seconds that --once waits for the answer of an engine


def agent(args: Namespace, output: Output) -> int:
    """Run until SIGTERM or SIGINT; with --once, until nothing more can be done now."""
    check_label(args.label, "--label")
    url = given(args.store, "--store", STORES)
    store_place = place(url)  # before anything is created for an invalid one
    if url == "memory:":
        raise InvalidValue("--store", url, f"must be {STORES}, because no other process can write to a store in memory")
    limits = limits_of(args)
    ns.set_patience(limits.file_system_seconds)
    metrics = _metrics(args, limits)
    for dest, flag in (("hook_states", "--hook-states"), ("hook_timeout", "--hook-timeout")):
        if not args.hook and dest in args.given:
            output.warning(f"{flag} has no effect without --hook", field=flag)
    # The service reloads on SIGHUP. Before it runs there is nothing to reload; after it, the process ends undisturbed.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # The kernel would reap the commands of hooks if the agent had inherited that SIGCHLD is ignored, as it is after
    # `trap '' CHLD`: each that fails would count as delivered.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # An agent with thousands of interfaces has hundreds of thousands of objects, but no cycles: looking for cycles
    # less often makes a resync 10 % faster.
    raise_limit()
    gc.set_threshold(100_000, 20, 100)
    as_json = args.log == "json" or json_wins(args, "log")
    with (
        unblocked({signal.SIGTERM, signal.SIGINT, signal.SIGHUP}),
        _log_to_stderr(as_json=as_json, most=limits.log_bytes),
        closing(Instance(args.label)) as instance,
        closing(StatusDirectory(args.label, args.status_dir)) as statuses,
        closing(_store(url, args.label, statuses, limits)) as store,
    ):
        agent_file = AgentFile(statuses, store_place, shown_identity(HERE), args.label)
        agent_file.write()  # at once, because readers attribute the statuses to the running agent
        with (
            _microservices(args) as resolver,
            Session(resolver=resolver) as session,
            Configurator(
                session,
                label=args.label,
                missing_netns=args.missing_netns,
                loopback=args.loopback == "up",
                ipv6=args.ipv6,
                limits=limits,
            ) as configurator,
            _hooks(args) as hooks,
        ):
            if args.ipv6 != configurator.ipv6 and not lacks_ipv6():
                why = "net.ipv6.conf cannot be written here (is /proc/sys read-only, or not visible?)"
                logging.getLogger("vethlib.agent").warning("--ipv6 %s is ignored: %s", args.ipv6, why)
            if args.hook:
                configurator.subscribe(hooks.tell)
            beside = [] if metrics is None else [metrics(configurator, hooks)]
            service = Service(
                configurator, store, once=args.once, instance=instance, agent_file=agent_file, beside=beside
            )
            asyncio.run(service.run())
            if args.once:
                with until_stopped():  # a signal also ends running hooks
                    hooks.drain(args.hook_timeout)
            return _report(output, service, configurator) if args.once else DONE


def _store(url: str, label: str, status_dir: StatusDirectory, limits: Limits) -> Store:
    try:
        return open_store(url, label=label, status_dir=status_dir, limits=limits)
    except InvalidValue as error:
        field = "--status-dir" if error.field == "status_dir" else error.field
        raise InvalidValue(field, error.value, error.hint) from None


def _metrics(args: Namespace, limits: Limits) -> Callable[[Configurator, Hooks], Callable[[Service], Endpoint]] | None:
    """Return what creates the endpoint of --metrics for a configurator, hooks and a service; None without the flag."""
    if not args.metrics:
        if "metrics_links" in args.given:
            raise UsageError("--metrics-links needs --metrics", field="--metrics-links", hint="give --metrics ADDRESS")
        return None
    try:
        from vethlib.agent.metrics import Endpoint, parse_address, registry_of
    except ImportError as error:
        if error.name != "prometheus_client":
            raise
        raise VethError("--metrics needs the package prometheus-client: pip install 'vethlib[metrics]'") from None
    address = parse_address(args.metrics)

    def serve(configurator: Configurator, hooks: Hooks, service: Service) -> Endpoint:
        registry = registry_of(configurator, service, hooks, links=args.metrics_links)
        return Endpoint(address, registry, service.health, limits=limits)

    return partial(partial, serve)


def _microservices(args: Namespace) -> closing[DockerResolver] | closing[MemoryResolver]:
    """Return the resolver of microservices: --docker."""
    with system_errors("prepare to find microservices"):
        if args.docker == "off":
            unknown = MemoryResolver()
            unknown.down("microservices cannot be found: this agent runs with --docker off")
            return closing(unknown)
        path = socket_path(args.docker, "--docker")
        return closing(DockerResolver(path, patience=_PATIENCE if args.once else 0.0))


def _hooks(args: Namespace) -> Hooks:
    """Return the hooks: --hook."""
    states = None if args.hook_states is None else [state.strip() for state in args.hook_states.split(",")]
    status_dir = absolute(args.status_dir) if args.status_dir else ""
    return Hooks(args.hook, label=args.label, states=states, timeout=args.hook_timeout, status_dir=status_dir)


def _report(output: Output, service: Service, configurator: Configurator) -> int:
    """Print the result of a run with --once; return the exit code."""
    statuses = configurator.status()
    if output.as_json:
        output.json([status.as_dict() for status in statuses])
    elif service.ready:
        output.line(summary(statuses))
    if not service.ready:
        output.error(service.outage or "stopped before the store was read", code="store")
        return REFUSED
    states = {status.state for status in statuses}
    if states <= {State.CONFIGURED}:
        return DONE
    return PENDING if states <= {State.CONFIGURED, State.PENDING} else REFUSED


@contextmanager
def _log_to_stderr(*, as_json: bool, most: int) -> Iterator[None]:
    """Send what vethlib logs in this block to stderr only; up to `most` bytes are queued for a reader."""
    handler = _handler(most)
    in_journal = _is_journal(sys.stderr)
    lines = _JsonLines() if as_json else _Lines(with_time=not in_journal)
    handler.setFormatter(_JournalLines(lines) if in_journal else lines)
    log, of_loop, sparse = logging.getLogger("vethlib"), logging.getLogger("asyncio"), Sparse()
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if with_tracebacks() else logging.INFO)
    log.propagate = False
    of_loop.addHandler(handler)  # its own handler could block on stderr
    of_loop.addFilter(sparse)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate
        of_loop.removeHandler(handler)
        of_loop.removeFilter(sparse)
        if isinstance(handler, LogHandler):
            handler.finish(_GRACE)


def _handler(most: int) -> logging.Handler:
    try:
        return LogHandler(sys.stderr, most)
    except (OSError, ValueError):  # stderr has no descriptor: main() was called by a program
        return logging.StreamHandler(sys.stderr)


def _is_journal(stream: TextIO) -> bool:
    """Return whether the journal reads a stream ($JOURNAL_STREAM, systemd.exec(5)).

    The variable is inherited by programs whose output goes elsewhere, so it has the numbers of the stream's file.
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class _JournalLines(logging.Formatter):
    """Begins each line with its priority (sd-daemon(3)), which the journal removes.

    A line without one could begin with the name of a link that looks like one, and be sent to all terminals.
    """

    def __init__(self, lines: logging.Formatter) -> None:
        super().__init__()
        self._lines = lines

    def format(self, record: logging.LogRecord) -> str:
        level = next((priority for level, priority in _PRIORITIES if record.levelno >= level), 7)
        return "\n".join(f"<{level}>{line}" for line in self._lines.format(record).split("\n"))


class _Lines(logging.Formatter):
    """Formats a line for people, without the time if the journal adds it."""

    def __init__(self, *, with_time: bool = True) -> None:
        super().__init__()
        self._with_time = with_time

    def format(self, record: logging.LogRecord) -> str:
        words = [_at(record.created)] if self._with_time else []
        if record.levelno >= logging.WARNING:
            words.append(record.levelname.lower() + ":")
        words.append(printable(cut(record.getMessage(), _MOST)))
        if record.exc_info:
            words.append(_raised(record, self))
        return " ".join(words)


class _JsonLines(logging.Formatter):
    """Formats an object per line: time, level and message, and the fields of a status (`Statuses.log`)."""

    def format(self, record: logging.LogRecord) -> str:
        message = cut(record.getMessage(), _MOST)
        entry = {"time": _at(record.created), "level": record.levelname.lower(), "message": message}
        entry |= getattr(record, "vethlib", {})
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def _raised(record: logging.LogRecord, formatter: logging.Formatter) -> str:
    """Return an exception in one line, or its traceback if VETHLIB_DEBUG asks for it."""
    assert record.exc_info is not None
    if with_tracebacks():
        return "\n" + "\n".join(map(printable, formatter.formatException(record.exc_info).splitlines()))
    error = record.exc_info[1]
    return f"({type(error).__name__}: {printable(' '.join(str(error).split()))}; VETHLIB_DEBUG=traceback shows where)"


def _at(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"
