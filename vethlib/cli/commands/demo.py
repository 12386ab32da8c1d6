"""demo: apply an example in private namespaces, send traffic through it, and draw it.

First, the whole process moves into private network and mount namespaces (and a user namespace, for an unprivileged
user). They end with the process, so nothing is left behind.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from vethlib import ns
from vethlib.agent.config.model import Interface
from vethlib.agent.config.namespace import NamespaceType
from vethlib.agent.host.execution import execute
from vethlib.agent.host.observation import observe
from vethlib.agent.planning.operations import Plan
from vethlib.agent.planning.planner import plan
from vethlib.agent.state import State
from vethlib.cli.applying import configuration
from vethlib.cli.applying.limits import limits_of
from vethlib.cli.applying.reporting import report_unsettled
from vethlib.cli.host.picturing import of_host
from vethlib.cli.host.traffic import Traffic, talk, talkers, wait_until_usable
from vethlib.cli.host.view import View
from vethlib.cli.render.picture import draw
from vethlib.cli.term.exits import DONE, INVALID, PENDING, REFUSED, report
from vethlib.cli.term.output import Output
from vethlib.cli.term.text import counted, paint
from vethlib.errors import InvalidValue
from vethlib.session import Session

__all__ = ["demo"]

_LABEL = "demo"
_ROUNDS = 1000
_PATIENCE = 10.0  # seconds
_LISTED = 6  # pairs of which each gets a line of its own


def demo(args: Namespace, output: Output) -> int:
    """Run the demo; return the exit code."""
    paths = args.paths or [str(_example())]
    interfaces = configuration.read(paths, output, limits_of(args))
    if interfaces is None or _are_shared(interfaces, output):
        return INVALID
    ns.isolate()
    with Session() as session:
        started = time.perf_counter()
        first = _plan(session, interfaces)
        execution = execute(session, first)
        took = time.perf_counter() - started
        for _, error in execution.errors:
            return report(output, error)
        states = {verdict.state for verdict in first.verdicts.values()} - {State.CONFIGURED}
        if states:
            report_unsettled(output, first.verdicts)
            return PENDING if states == {State.PENDING} else REFUSED
        view = _view_when_up(session, interfaces)
        pairs = list(talkers(view.pairs()))
        for pair in pairs:
            wait_until_usable(session, pair)
        # A thousand datagrams for each of a few pairs; for many pairs, as many in total as for those.
        rounds = max(1, _ROUNDS * _LISTED // max(len(pairs), _LISTED))
        traffic = [talk(pair, rounds) for pair in pairs]
        second = _plan(session, interfaces)
    if output.as_json:
        output.json(
            {
                "operations": first.as_dicts(),
                "seconds": round(took, 6),
                "traffic": [one.as_dict() for one in traffic],
                "second_apply": second.as_dicts(),
            }
        )
    else:
        source = ", ".join(map(_short, paths))
        output.line(
            f"{paint('applied', 'good')} {source}: {counted(len(interfaces), 'interface')} in {took * 1e3:.1f} ms"
        )
        output.line()
        for line in draw(of_host(view)):
            output.line(f"  {line}")
        output.line()
        _show_traffic(output, traffic)
        _show_second(output, second)
        output.line(paint("Everything was in private namespaces, which end now: nothing is left behind.", "faint"))
    good = all(one.received == one.sent for one in traffic) and not second.operations
    return DONE if good else REFUSED


def _example() -> Path:
    """Return the directory of the example pair: next to the package in a checkout, otherwise inside it."""
    package = Path(__file__).parents[2]
    for folder in (package, package.parent):
        if (folder / "examples" / "pair").is_dir():
            return folder / "examples" / "pair"
    raise InvalidValue("PATH", "", "must be a northbound file, because the examples are not installed")


def _are_shared(interfaces: Mapping[str, Interface], output: Output) -> bool:
    """Report the interfaces in namespaces that are not private; return whether there are any.

    Names lead to private namespaces only, but processes and files are those of the host.
    """
    shared = {
        name: interface.namespace.ref
        for name, interface in interfaces.items()
        if interface.namespace.type in (NamespaceType.PID_REF_NS, NamespaceType.FILE_REF_NS) and interface.namespace.ref
    }
    for name, ref in shared.items():
        hint = "must be the name of a namespace, because the demo has private ones"
        output.error(f"{name}: namespace {ref}: {hint}", code="invalid-value", field="namespace", hint=hint)
    return bool(shared)


def _plan(session: Session, interfaces: Mapping[str, Interface]) -> Plan:
    refs = [interface.namespace.ref for interface in interfaces.values()]
    return plan(interfaces, observe(session, refs), label=_LABEL, prune=False)


def _view_when_up(session: Session, interfaces: Mapping[str, Interface]) -> View:
    """Return the links once their operational state is up: a few milliseconds later (net/core/link_watch.c)."""
    refs = dict.fromkeys(interface.namespace.ref for interface in interfaces.values())
    up = [one for one in interfaces.values() if one.enabled and interfaces[one.peer_if_name].enabled]
    deadline = time.monotonic() + _PATIENCE
    while True:
        view = View(session, refs)
        if sum(one.link.operstate == "up" for one in view.links) >= len(up) or time.monotonic() > deadline:
            return view
        time.sleep(0.01)


def _show_traffic(output: Output, traffic: Sequence[Traffic]) -> None:
    if not traffic:
        output.line("no traffic: no pair is up and has addresses of the same subnet at both ends")
        return
    listed = traffic if len(traffic) <= _LISTED else [one for one in traffic if one.received != one.sent]
    for one in listed:
        output.line(f"{one.a} ⇄ {one.b}: {_score(one.received, one.sent)}, {one.round_trip:.0f} µs each")
    if len(traffic) > _LISTED:
        sent, received = sum(one.sent for one in traffic), sum(one.received for one in traffic)
        times = sorted(one.round_trip for one in traffic)
        spread = f"{times[len(times) // 2]:.0f} µs each, at most {times[-1]:.0f} µs"
        output.line(f"{len(traffic)} pairs: {_score(received, sent)}, {spread}")


def _score(received: int, sent: int) -> str:
    return f"{paint(f'{received} of {sent}', 'good' if received == sent else 'bad')} UDP datagrams there and back"


def _show_second(output: Output, second: Plan) -> None:
    if second.operations:
        number = counted(len(second.operations), "operation")
        output.line(f"{paint('applied again', 'bad')}: {number}, but none was expected")
    else:
        output.line(f"{paint('applied again', 'good')}: nothing to change")


def _short(path: str) -> str:
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except (ValueError, FileNotFoundError):  # not below the working directory, or that has been deleted
        return path
