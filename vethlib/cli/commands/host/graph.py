"""graph: a picture of this host, or of northbound files."""

from __future__ import annotations

import errno
import os
import stat
import time
from argparse import Namespace
from collections.abc import Callable
from typing import Final

from vethlib import _trusted
from vethlib._files import write_whole
from vethlib.agent.config.mark import check_label
from vethlib.agent.host.recordfile import RecordFile
from vethlib.agent.process.claim import NoUnixSockets
from vethlib.agent.process.instance import running
from vethlib.agent.process.rundir import status_directory
from vethlib.agent.stores.agentreport import read_report
from vethlib.agent.stores.published import DirectoryStatuses, Published
from vethlib.cli.applying import configuration
from vethlib.cli.applying.limits import limits_of
from vethlib.cli.applying.planning import Desired, observe_and_plan
from vethlib.cli.arguments.parser import UsageError, json_wins
from vethlib.cli.host.picturing import of_files, of_host
from vethlib.cli.host.status_places import StatusPlaces
from vethlib.cli.host.view import View
from vethlib.cli.render.picture import draw
from vethlib.cli.term.exits import DONE, INVALID
from vethlib.cli.term.output import Output
from vethlib.cli.term.signals import until_stopped
from vethlib.cli.term.text import counted
from vethlib.errors import NotPermitted, VethError
from vethlib.graph import Graph, dot, mermaid, svg
from vethlib.session import Session

__all__ = ["graph"]

_FORMATS: Final[dict[str, Callable[[Graph], str]]] = {"dot": dot, "mermaid": mermaid, "svg": svg}
_SETTLE: Final = 0.1  # seconds without a change, so that many changes make one picture
_LONGEST: Final = 1.0  # seconds until it is drawn at the latest
_AGAIN: Final = 1.0  # seconds until the next try
_LOOK: Final = 1.0  # seconds between two checks for the agent, whose end causes no event


def graph(args: Namespace, output: Output) -> int:
    """Draw once, or with --watch after each change; return the exit code."""
    check_label(args.label, "--label")
    if args.output == "-":
        args.output = ""  # stdout
    if args.watch and args.paths:
        raise UsageError("--watch draws this host, not files", field="--watch", hint="leave out PATH or --watch")
    if args.output and "json" in args.given:
        raise UsageError(
            "--json prints to stdout, not to a file",
            field="--json",
            hint="leave out --output, and redirect stdout: >FILE",
        )
    if args.offline and not args.paths:
        raise UsageError("--offline needs files", field="--offline", hint="give PATH, or leave out --offline")
    if "limit" in args.given and not args.paths:
        output.warning("--limit has no effect without files", field="--limit")
    if args.watch and not args.output and not output.is_terminal:
        raise UsageError("--watch needs a file or a terminal", field="--watch", hint="give --output FILE")
    if args.watch:
        return _watch(args, output)
    drawing = _of_files(args, output) if args.paths else _of_host(args, output)
    if drawing is None:
        return INVALID
    _draw(drawing, args, output)
    return DONE


def _of_host(args: Namespace, output: Output) -> Graph:
    with Session() as session:
        view = View(session)
        view.warn(output)
        return _with_states(session, view, args)


def _with_states(session: Session, view: View, args: Namespace) -> Graph:
    """Return the graph of a view, with what the agent of this host has published, if one runs."""
    try:
        published = DirectoryStatuses(_status_directory(args), args.label).read()
    except NoUnixSockets:
        published = Published({}, None)  # it is unknown whether one runs
    places = StatusPlaces(session, published, view.places)
    return of_host(view, list(published.current.values()), places)


def _status_directory(args: Namespace) -> str:
    directory: str = args.status_dir or status_directory(args.label)
    return directory


def _life(args: Namespace) -> tuple[int | None, bool]:
    """Return what decides whether an agent's statuses are shown: whether it runs, and has published all of them."""
    report = read_report(_status_directory(args))
    try:
        pid = running(args.label)
    except NoUnixSockets:
        pid = None  # it cannot be determined
    return pid, report is not None and report.ready


def _of_files(args: Namespace, output: Output) -> Graph | None:
    interfaces = configuration.read(args.paths, output, limits_of(args))
    if interfaces is None:
        return None
    if args.offline:
        return of_files(interfaces, None, None)
    try:
        with Session() as session, RecordFile(session, args.label, read_only=True) as records:
            planned = observe_and_plan(session, Desired(interfaces, args.label), records)
    except NotPermitted as error:
        output.warning(f"only the files are shown, without differences from this host: {error}")
        return of_files(interfaces, None, None)
    return of_files(interfaces, planned.observed, planned.plan)


def _draw(drawing: Graph, args: Namespace, output: Output) -> None:
    if args.output:
        _write(args.output, _FORMATS[_format(args)](drawing))
    elif json_wins(args, "form"):
        output.json(drawing.as_dict())
    elif args.form:
        output.document(_FORMATS[args.form](drawing))
    else:
        for line in draw(drawing):
            output.line(line)
        if not drawing.edges and not any(box.loose for box in drawing.boxes):
            output.remark(f"no pairs in {counted(len(drawing.boxes), 'namespace')}")


def _format(args: Namespace) -> str:
    """Return the requested format, or that of the file name."""
    ending = {".dot": "dot", ".gv": "dot", ".mmd": "mermaid", ".mermaid": "mermaid", ".svg": "svg"}
    form: str | None = args.form or ending.get(os.path.splitext(args.output)[1])
    if form is None:
        hint = "give --svg, --dot or --mermaid, or a FILE that ends in .svg, .dot or .mmd"
        raise UsageError(f"--output {args.output!r}: unknown format", field="--output", hint=hint)
    return form


def _write(path: str, text: str) -> None:
    """Replace the file atomically.

    A symbolic link is followed, unless it belongs to another user, who could make us overwrite another file.
    """
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), directory)
    place = _trusted.locate(path)
    directory_fd = place.directory.fileno()
    try:
        if _is_special(place):  # /dev/stdout, a pipe
            with open(os.open(place.name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory_fd), "wb") as file:
                file.write(text.encode())
        else:
            # The umask determines the mode of a new file, as for any output.
            write_whole(place.name, text.encode(), mode=None, keep=True, directory=directory_fd)
    except OSError as error:
        error.filename = path
        raise
    finally:
        place.directory.close()


def _is_special(place: _trusted.Place) -> bool:
    """Return whether to write to a file instead of replacing it: a device, a pipe, or an open file (/proc/self/fd)."""
    try:
        status = os.stat(place.name, dir_fd=place.directory.fileno(), follow_symlinks=False)
    except FileNotFoundError:
        return False
    return _trusted.is_trusted(status) and not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode))


def _watch(args: Namespace, output: Output) -> int:
    from vethlib.monitor import Monitor

    if args.output:
        _format(args)
    last = None
    with (
        until_stopped() as stopped,
        Session() as session,
        Monitor(session, label=args.label, status_dir=args.status_dir) as monitor,
    ):
        while not stopped():
            life = _life(args)
            try:
                drawing = _with_states(session, View(session), args)
            except VethError as error:  # a namespace may have ended meanwhile
                output.warning(f"{error}; trying again")
                last = None
            else:
                if drawing != last:
                    if not args.output:
                        output.clear()
                    _draw(drawing, args, output)
                    output.flush_to_reader()
                    last = drawing
            if last is None:
                monitor.poll(_AGAIN)
            else:
                while not (stopped() or monitor.poll(_LOOK)) and _life(args) == life:
                    pass
            until = time.monotonic() + _LONGEST
            while time.monotonic() < until and monitor.poll(_SETTLE):
                pass
    return DONE
