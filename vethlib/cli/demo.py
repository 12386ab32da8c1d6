"""demo: the main job from end to end, in namespaces of its own: apply an example, send traffic, show the picture.

The whole process goes into private network and mount namespaces first (and a user namespace, for an ordinary user).
They end with it, so nothing is left behind however it ends.
"""

from __future__ import annotations

import socket
import time
from argparse import Namespace
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path

from vethlib import ns
from vethlib.agent.execute import execute
from vethlib.agent.files import load
from vethlib.agent.mark import check_label
from vethlib.agent.observe import observe
from vethlib.agent.plan import plan
from vethlib.agent.state import State
from vethlib.errors import InvalidValue, VethError
from vethlib.links import Interface
from vethlib.session import Session
from vethlib.session.survey import SurveyedLink

from . import DONE, REFUSED
from .output import Output
from .picture import draw, edges_of
from .where import ref_text

__all__ = ["demo"]

_ROUNDS = 1000
_LABEL = check_label("demo")


@dataclass(frozen=True, slots=True)
class Traffic:
    """What came back of `sent` datagrams, each answered, and how long one there and back took (µs, median)."""

    a: str
    b: str
    sent: int
    received: int
    round_trip: float


def demo(args: Namespace, output: Output) -> int:
    """Run it."""
    paths = args.paths or [str(_example())]
    configuration = load(paths)
    for one in configuration.invalid:
        raise InvalidValue(one.source, one.name, "; ".join(map(str, one.problems)))
    interfaces = configuration.interfaces
    refs = [interface.namespace.ref for interface in interfaces.values()]
    ns.isolate()
    with Session() as session:
        started = time.perf_counter()
        wanted = plan(interfaces, observe(session, refs), label=_LABEL, prune=False)
        execution = execute(session, wanted)
        took = time.perf_counter() - started
        for _, error in execution.errors:
            raise error
        waiting = [f"{name}: {v.reason}" for name, v in wanted.verdicts.items() if v.state is not State.CONFIGURED]
        if waiting:
            raise VethError("; ".join(waiting))
        for interface in interfaces.values():
            if interface.enabled and interfaces[interface.peer_if_name].enabled:
                session.set(interface.kernel_name, interface.namespace.ref, wait=10)
        links = session.survey(dict.fromkeys(["", *refs])).links
        traffic = [_talk(a, b, pair) for a, b, pair in _talkers(links)]
        again = plan(interfaces, observe(session, refs), label=_LABEL, prune=False)
    if output.as_json:
        output.json(
            {
                "operations": wanted.as_dicts(),
                "seconds": took,
                "traffic": [
                    {"a": t.a, "b": t.b, "sent": t.sent, "received": t.received, "round_trip_us": t.round_trip}
                    for t in traffic
                ],
                "second_apply": again.as_dicts(),
            }
        )
    else:
        _tell(output, paths, len(interfaces), took, links, traffic)
    good = all(t.received == t.sent for t in traffic) and bool(traffic) and not again.operations
    return DONE if good else REFUSED


def _example() -> Path:
    """The example pair: beside the package in a checkout, inside it where it was installed."""
    package = Path(__file__).parents[1]
    for folder in (package, package.parent):
        if (folder / "examples" / "pair").is_dir():
            return folder / "examples" / "pair"
    raise InvalidValue("PATH", "", "the examples are not installed: name a northbound file")


def _talkers(links: list[SurveyedLink]) -> list[tuple[SurveyedLink, SurveyedLink, tuple[Interface, Interface]]]:
    """Every pair with an address of one subnet on both ends, IPv4 if there is a choice."""
    everything = {(one.at, one.link.index): one for one in links}
    found = []
    for at, one in everything.items():
        if one.peer is None or one.peer not in everything or at > one.peer or one.link.operstate != "up":
            continue
        peer = everything[one.peer]
        pairs = [
            (mine, theirs)
            for mine in one.link.addresses
            for theirs in peer.link.addresses
            if mine.network == theirs.network and not mine.is_link_local
        ]
        if pairs:
            found.append((one, peer, min(pairs, key=lambda pair: pair[0].version)))
    return found


def _talk(a: SurveyedLink, b: SurveyedLink, addresses: tuple[Interface, Interface]) -> Traffic:
    """Send UDP datagrams from `a` to `b`, each of them sent back, and compare every byte."""
    mine, theirs = addresses
    family = socket.AF_INET if isinstance(mine, IPv4Interface) else socket.AF_INET6
    sockets = []
    for one, address in ((a, mine), (b, theirs)):
        with ns.entered(one.ref):
            sockets.append(socket.socket(family, socket.SOCK_DGRAM))
        sockets[-1].bind((str(address.ip), 0))
        sockets[-1].settimeout(1)
    times = []
    received = 0
    here, there = sockets
    with here, there:
        for number in range(_ROUNDS):
            payload = f"{a.link.name}→{b.link.name} {number}".encode()
            started = time.perf_counter()
            try:
                here.sendto(payload, there.getsockname())
                data, sender = there.recvfrom(2048)
                there.sendto(data, sender)
                received += here.recv(2048) == payload and sender[0] == str(mine.ip)
            except TimeoutError:
                continue
            times.append(time.perf_counter() - started)
    median = sorted(times)[len(times) // 2] * 1e6 if times else 0.0
    return Traffic(_where(a, mine), _where(b, theirs), _ROUNDS, received, median)


def _where(one: SurveyedLink, address: Interface) -> str:
    return f"{one.link.name}@{ref_text(one.ref)} {address.ip}"


def _tell(
    output: Output, paths: list[str], count: int, took: float, links: list[SurveyedLink], traffic: list[Traffic]
) -> None:
    source = ", ".join(_short(path) for path in paths)
    output.line(f"{output.paint('applied', 'green')} {source}: {count} interfaces in {took * 1000:.1f} ms")
    output.line()
    for line in draw(edges_of(links), output.paint):
        output.line(f"  {line}")
    output.line()
    for one in traffic:
        style = "green" if one.received == one.sent else "red"
        count_text = output.paint(f"{one.received} of {one.sent}", style)
        output.line(f"{one.a} ⇄ {one.b}: {count_text} UDP datagrams there and back, {one.round_trip:.0f} µs each")
    output.line(f"{output.paint('applied again', 'green')}: nothing to change")
    output.line(output.paint("All of it was in private namespaces, which end here: nothing is left behind.", "dim"))


def _short(path: str) -> str:
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
