"""agent: keep this host as a store says, until told to stop."""

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
from typing import TYPE_CHECKING

from vethlib.agent.configurator import Configurator
from vethlib.agent.follow.docker import DockerResolver
from vethlib.agent.follow.engine import socket_path
from vethlib.agent.follow.resolver import MemoryResolver
from vethlib.agent.hooks import Hooks
from vethlib.agent.instance import Instance, status_directory
from vethlib.agent.mark import check_label
from vethlib.agent.service import Service, summary
from vethlib.agent.state import State
from vethlib.agent.stores.agentfile import AgentFile
from vethlib.agent.stores.opening import open_store, place
from vethlib.agent.stores.protocol import Store
from vethlib.errors import InvalidValue, VethError
from vethlib.session import Session

from .exits import DONE, PENDING, REFUSED
from .output import Output
from .parser import STORES, UsageError, given
from .stopping import until_stopped
from .text import printable
from .unexpected import with_tracebacks

if TYPE_CHECKING:
    from vethlib.agent.metrics import Endpoint

__all__ = ["agent"]

_PATIENCE = 5.0  # seconds that a run with --once waits for an engine that is there


def agent(args: Namespace, output: Output) -> int:
    """Run until SIGTERM or SIGINT; with --once, until the host is as far as it can be brought now."""
    check_label(args.label, "--label")
    url = given(args.store, "--store", STORES)
    if url == "memory:":
        raise InvalidValue("--store", url, f"nobody could put anything there: give {STORES}")
    metrics = _metrics(args)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nothing is loaded yet that could be loaded again
    # An agent of thousands of interfaces has hundreds of thousands of objects, and no cycles among them: to look for
    # some less often makes a resync 10 % faster.
    gc.set_threshold(100_000, 20, 100)
    with _log_to_stderr(as_json=args.json or args.log == "json"), closing(Instance(args.label)) as instance:
        status_dir = args.status_dir or status_directory(args.label)
        with (
            closing(_store(url, args.label, status_dir)) as store,
            _microservices(args) as resolver,
            Session(resolver=resolver) as session,
            Configurator(session, label=args.label, missing_netns=args.missing_netns) as configurator,
            _hooks(args) as hooks,
        ):
            if args.hook:
                configurator.subscribe(hooks.tell)
            agent_file = AgentFile(status_dir, place(url))
            beside = [] if metrics is None else [metrics(configurator, hooks)]
            service = Service(
                configurator, store, once=args.once, instance=instance, agent_file=agent_file, beside=beside
            )
            asyncio.run(service.run())
            if args.once:
                with until_stopped():  # the commands under way are ended then, too
                    hooks.drain(args.hook_timeout)
            return _tell(output, service, configurator) if args.once else DONE


def _store(url: str, label: str, status_dir: str) -> Store:
    try:
        return open_store(url, label=label, status_dir=status_dir)
    except InvalidValue as error:
        field = "--status-dir" if error.field == "status_dir" else error.field
        raise InvalidValue(field, error.value, error.hint) from None


def _metrics(args: Namespace) -> Callable[[Configurator, Hooks], Callable[[Service], Endpoint]] | None:
    """What serves the metrics of a configurator and a service: --metrics."""
    if not args.metrics:
        if args.metrics_links:
            raise UsageError(
                "--metrics-links without --metrics", field="--metrics-links", hint="give --metrics ADDRESS"
            )
        return None
    try:
        from vethlib.agent.metrics import Endpoint, parse_address, registry_of
    except ImportError as error:
        if error.name != "prometheus_client":
            raise
        raise VethError("--metrics needs the package prometheus-client: pip install 'vethlib[metrics]'") from None
    address = parse_address(args.metrics)

    def serve(configurator: Configurator, hooks: Hooks, service: Service) -> Endpoint:
        return Endpoint(address, registry_of(configurator, service, hooks, links=args.metrics_links), service.health)

    return partial(partial, serve)


def _microservices(args: Namespace) -> closing[DockerResolver] | closing[MemoryResolver]:
    """Who says what they are: --docker."""
    if args.docker == "off":
        nobody = MemoryResolver()
        nobody.down("microservices are not known: this agent runs with --docker off")
        return closing(nobody)
    path = socket_path(args.docker, "--docker")
    return closing(DockerResolver(path, patience=_PATIENCE if args.once else 0.0))


def _hooks(args: Namespace) -> Hooks:
    """Who is told of changes: --hook."""
    states = None if args.hook_states is None else [state.strip() for state in args.hook_states.split(",")]
    return Hooks(args.hook, label=args.label, states=states, timeout=args.hook_timeout)


def _tell(output: Output, service: Service, configurator: Configurator) -> int:
    """What a run with --once has come to."""
    statuses = configurator.status()
    if output.as_json:
        output.json([status.as_dict() for status in statuses])
    elif service.ready:
        output.line(summary(statuses))
    if not service.ready:
        output.error(service.outage or "stopped before the store said anything", code="store")
        return REFUSED
    states = {status.state for status in statuses}
    if states <= {State.CONFIGURED}:
        return DONE
    return PENDING if states <= {State.CONFIGURED, State.PENDING} else REFUSED


@contextmanager
def _log_to_stderr(*, as_json: bool) -> Iterator[None]:
    """A block in which what vethlib logs goes there, and nowhere else."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if as_json else _Lines())
    log = logging.getLogger("vethlib")
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


class _Lines(logging.Formatter):
    """A line for people. The journal has times of its own ($JOURNAL_STREAM, systemd.exec(5))."""

    def __init__(self) -> None:
        super().__init__()
        self._with_time = "JOURNAL_STREAM" not in os.environ

    def format(self, record: logging.LogRecord) -> str:
        words = [_at(record.created)] if self._with_time else []
        if record.levelno >= logging.WARNING:
            words.append(record.levelname.lower() + ":")
        words.append(printable(record.getMessage()))
        if record.exc_info:
            words.append(_raised(record, self))
        return " ".join(words)


class _JsonLines(logging.Formatter):
    """An object a line: time, level and message; and what an interface has come to, field by field (`Statuses.log`)."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {"time": _at(record.created), "level": record.levelname.lower(), "message": record.getMessage()}
        entry |= getattr(record, "vethlib", {})
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def _raised(record: logging.LogRecord, formatter: logging.Formatter) -> str:
    """What was raised, in one line; where, for those who ask for it."""
    assert record.exc_info is not None
    if with_tracebacks():
        return "\n" + formatter.formatException(record.exc_info)
    error = record.exc_info[1]
    return f"({type(error).__name__}: {printable(' '.join(str(error).split()))}; VETHLIB_DEBUG=traceback shows where)"


def _at(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"
