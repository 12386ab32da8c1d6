"""graph: a picture of this host, or of northbound files."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from typing import Final

from vethlib.agent.instance import status_directory
from vethlib.agent.mark import check_label
from vethlib.agent.observe import observe
from vethlib.agent.plan import plan
from vethlib.agent.stores.published import DirectoryStatuses
from vethlib.errors import NotPermitted, VethError
from vethlib.graph import Graph, dot, mermaid, svg
from vethlib.session import Session

from . import configuration
from .exits import DONE, INVALID
from .output import Output
from .parser import UsageError
from .picture import draw
from .picturing import of_files, of_host
from .stopping import until_stopped
from .text import counted
from .view import View

__all__ = ["graph"]

_FORMATS: Final[dict[str, Callable[[Graph], str]]] = {"dot": dot, "mermaid": mermaid, "svg": svg}
_SETTLE: Final = 0.1  # seconds without a change; many changes are one picture
_LONGEST: Final = 1.0  # seconds until it is drawn, whatever goes on
_AGAIN: Final = 1.0  # seconds until another try


def graph(args: Namespace, output: Output) -> int:
    """Draw it once, or with --watch again whenever it changes."""
    check_label(args.label, "--label")
    if args.watch and args.paths:
        raise UsageError("--watch is for this host, not for files", field="--watch", hint="leave out PATH or --watch")
    if args.output and output.as_json:
        raise UsageError("--json is for stdout", field="--json", hint="leave out --output, and say >FILE")
    if args.offline and not args.paths:
        raise UsageError("--offline is for files", field="--offline", hint="give PATH, or leave out --offline")
    if args.watch and not args.output and not output.is_terminal:
        raise UsageError("--watch rewrites a file", field="--watch", hint="give --output FILE")
    if args.watch:
        return _watch(args, output)
    found = _of_files(args, output) if args.paths else _of_host(args, output)
    if found is None:
        return INVALID
    _draw(found, args, output)
    return DONE


def _of_host(args: Namespace, output: Output) -> Graph:
    with Session() as session:
        view = View(session)
    if view.hidden:
        output.warning(f"only links of this namespace are shown: {view.hidden}")
    return of_host(view, _states(args))


def _states(args: Namespace) -> list[dict[str, object]]:
    """What the agent of this host says, if one runs."""
    published = DirectoryStatuses(args.status_dir or status_directory(args.label), args.label).read()
    return [] if published.agent is None else list(published.entries.values())


def _of_files(args: Namespace, output: Output) -> Graph | None:
    interfaces = configuration.read(args.paths, output)
    if interfaces is None:
        return None
    if args.offline:
        return of_files(interfaces, None, None)
    try:
        with Session() as session:
            observed = observe(session, [one.namespace.ref for one in interfaces.values()])
    except NotPermitted as error:
        output.warning(f"only the files are shown, without how far this host is from them: {error}")
        return of_files(interfaces, None, None)
    return of_files(interfaces, observed, plan(interfaces, observed, label=args.label, prune=False))


def _draw(found: Graph, args: Namespace, output: Output) -> None:
    if output.as_json:
        output.json(found.as_dict())
    elif args.output:
        _write(args.output, _FORMATS[_format(args)](found))
    elif args.form:
        output.raw(_FORMATS[args.form](found))
    else:
        for line in draw(found):
            output.line(line)
        if not found.edges and not any(box.loose for box in found.boxes):
            output.remark(f"no pairs in {counted(len(found.boxes), 'namespace')}")


def _format(args: Namespace) -> str:
    """That which was asked for, or that of the file's name."""
    ending = {".dot": "dot", ".gv": "dot", ".mmd": "mermaid", ".mermaid": "mermaid", ".svg": "svg"}
    form: str | None = args.form or ending.get(os.path.splitext(args.output)[1])
    if form is None:
        hint = "give --svg, --dot or --mermaid, or a FILE that ends in .svg, .dot or .mmd"
        raise UsageError(f"--output {args.output!r}: in which format?", field="--output", hint=hint)
    return form


def _write(path: str, text: str) -> None:
    """Replace the file in one step, so that whoever looks at it never sees half of it."""
    if os.path.exists(path) and not os.path.isfile(path):  # /dev/stdout, a pipe
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), directory)
    path = os.path.realpath(path)  # a symbolic link stays one
    mode = os.stat(path).st_mode & 0o7777 if os.path.exists(path) else 0o666 & ~_umask()
    fd, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".vethctl-")
    try:
        with open(fd, "w", encoding="utf-8") as file:
            os.fchmod(fd, mode)
            file.write(text)
        os.replace(temporary, path)  # it is whole by now
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    """What the process takes from the modes of new files, which only setting it tells."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


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
            try:
                found = of_host(View(session), _states(args))
            except VethError as error:  # a namespace may have ended amid the look
                output.warning(f"{error}; trying again")
                last = None
            else:
                if found != last:
                    if not args.output:
                        output.clear()
                    _draw(found, args, output)
                    output.flush()
                    last = found
            monitor.poll(None if last is not None else _AGAIN)
            until = time.monotonic() + _LONGEST
            while time.monotonic() < until and monitor.poll(_SETTLE):
                pass
    return DONE
