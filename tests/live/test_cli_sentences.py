"""The sentences of vethctl, all in this table: other tests ask for exit codes, and for the codes and fields of --json.

Each scenario is what somebody types, in order, and what is printed then. HERE is the directory of the scenario, and a
number that differs from run to run is written N.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.commands import Vethctl
from tests.live.applying import EXAMPLES, value
from vethlib.agent.reasons import link_of_other_label
from vethlib.cli.applying import question

PAIR = EXAMPLES / "pair"


OF_OTHERS = [link_of_other_label(f"'veth{n}' in netns:ns{n}", "veth", f"veth{n}", "vpp1") for n in (1, 2)]


class Step(NamedTuple):
    """A command, its exit code, and what it prints on stdout and on stderr."""

    command: str
    code: int
    out: str = ""
    err: str = ""
    stdin: str = ""


def one(name: str, peer: str, netns: str = "", **more: object) -> str:
    return json.dumps(value(name, peer, netns, **more))


def both(a: str, b: str) -> str:
    return f"[{a}, {b}]"


SCENARIOS = {
    "a pair is applied": [
        Step("diff PAIR/veth1.json", 1, "", "? veth1 is PENDING: peer veth2 is not configured"),
        Step(
            "apply PAIR/veth1.json",
            3,
            "nothing to change: 1 interface is PENDING",
            "? veth1 is PENDING: peer veth2 is not configured",
        ),
        Step(
            "apply PAIR",
            0,
            "+ namespace ns1\n"
            "+ namespace ns2\n"
            "+ 'veth1' in netns:ns1 ⇄ 'veth2' in netns:ns2\n"
            "    veth1  up  mac d2:74:8c:12:67:d2  mtu 1500  192.168.22.1/24  2001:db8::ff00:89e3:bb42/48\n"
            "    veth2  up  mtu 1500  192.168.22.2/24\n"
            "applied: added 2 namespaces, created 1 pair; 2 interfaces are as configured",
        ),
        Step(
            "diff PAIR/veth2.json",
            0,
            "no difference: 1 interface is as configured",
        ),
        Step("apply PAIR", 0, "nothing to change: 2 interfaces are as configured"),
        Step("diff PAIR", 0, "no difference: 2 interfaces are as configured"),
        Step(
            "apply PAIR --label other",
            2,
            "nothing to change: 2 interfaces are FAILED",
            f"? veth1 is FAILED: {OF_OTHERS[0]}\n? veth2 is FAILED: {OF_OTHERS[1]}",
        ),
    ],
    "links are changed and deleted": [
        Step(
            "apply -",
            0,
            "+ namespace ns1\n+ 'a' in netns:ns1 ⇄ 'b'\n    a  up  mtu 1400  10.0.0.1/24\n    b  up  mtu 1400\n"
            "applied: added 1 namespace, created 1 pair; 2 interfaces are as configured",
            "",
            both(one("a", "b", "ns1", mtu=1400, ip_addresses=["10.0.0.1/24"]), one("b", "a", mtu=1400)),
        ),
        Step(
            "apply -",
            0,
            "~ 'a' in netns:ns1: mtu 1400 → 1300, -10.0.0.1/24, +10.0.0.2/24\n"
            "~ 'b': mtu 1400 → 1300\n"
            "applied: changed 2 links; 2 interfaces are as configured",
            "",
            both(one("a", "b", "ns1", mtu=1300, ip_addresses=["10.0.0.2/24"]), one("b", "a", mtu=1300)),
        ),
        Step(
            "apply --prune -",
            0,
            "- 'a' in netns:ns1 and its peer: a is not configured\n"
            "applied: deleted 1 pair; no interfaces are configured",
            "",
            "[]",
        ),
    ],
    "what is wrong with a file": [
        Step(
            "apply -",
            1,
            "",
            "vethctl: stdin[1]: b: mtu 5: a veth's MTU is 68 to 65535 bytes",
            both(one("a", "b"), one("b", "a", mtu=5)),
        ),
        Step(
            "validate -",
            0,
            "valid: 1 interface is well-formed",
            "warning: stdin: a: linux_namespace is a former name of namespace: write namespace\n"
            "warning: a: peer b is not configured",
            '{"name": "a", "enabled": true, "veth": {"peer_if_name": "b"}, "linux_namespace": {"type": 2, "name": ""}}',
        ),
        Step(
            "apply HERE",
            0,
            "nothing to change: no interfaces are configured",
            "warning: HERE has no *.json file: an empty configuration",
        ),
    ],
    "a store is edited": [
        Step(
            "put - --store dir:HERE/conf",
            0,
            "+ a  HERE/conf/a.json\n+ b  HERE/conf/b.json\nstored: added 2 interfaces",
            "warning: HERE/conf did not exist and was created",
            both(one("a", "b"), one("b", "a")),
        ),
        Step(
            "put - --store dir:HERE/conf",
            0,
            "nothing to change: 1 interface already stored",
            "",
            one("b", "a"),
        ),
        Step(
            "put - --store dir:HERE/conf",
            0,
            "~ b  HERE/conf/b.json\n+ c  HERE/conf/c.json\nstored: added 1 interface, changed 1 interface",
            "warning: c: peer a names b as its peer, not this interface\n"
            "warning: a has the MTU 1500 (the default), b 1400: packets above 1400 bytes are lost",
            both(one("b", "a", mtu=1400), one("c", "a")),
        ),
        Step(
            "get d --store dir:HERE/conf",
            2,
            "",
            "vethctl: dir:HERE/conf: there is no interface 'd'\n"
            "  to see all interfaces: vethctl list --store dir:HERE/conf",
        ),
        Step(
            "del x --prefix --store dir:HERE/conf", 2, "", "vethctl: dir:HERE/conf: no interface name begins with 'x'"
        ),
        Step("del c --store dir:HERE/conf", 0, "- c  HERE/conf/c.json\nstored: deleted 1 interface"),
        Step("list --store dir:HERE/nowhere", 2, "", "vethctl: HERE/nowhere does not exist: create the directory"),
        Step(
            "list",
            1,
            "",
            "vethctl: --store is missing\n  give --store dir:PATH or etcd://HOST:PORT, or set VETHLIB_STORE",
        ),
    ],
    "links are shown": [
        Step("show", 0, "", "no veth links in this namespace, and there is no named one (--all shows every kind)"),
        Step(
            "show nope",
            2,
            "",
            "vethctl: show: there is no link 'nope'\n  to see all links: vethctl show --all",
        ),
        Step("netns add n1 n2", 0),
        Step("show", 0, "", "no veth links in this namespace or in the 2 named ones (--all shows every kind)"),
        Step("show @n1", 0, "", "no veth links there (--all shows every kind)"),
        Step("create a b --down", 0, "+ 'a'  index N  MAC\n+ 'b'  index N  MAC"),
        Step(
            "create a c",
            2,
            "",
            "vethctl: create veth 'a' ⇄ 'c': 'a' already exists in the home namespace\n  to see it: vethctl show --all",
        ),
        Step("delete b", 0),
    ],
    "a trial is not confirmed": [
        Step(
            "apply PAIR --try 50ms",
            4,
            "+ namespace ns1\n"
            "+ namespace ns2\n"
            "+ 'veth1' in netns:ns1 ⇄ 'veth2' in netns:ns2\n"
            "    veth1  up  mac d2:74:8c:12:67:d2  mtu 1500  192.168.22.1/24  2001:db8::ff00:89e3:bb42/48\n"
            "    veth2  up  mtu 1500  192.168.22.2/24\n"
            "- 'veth1' in netns:ns1 and its peer: tried\n"
            "- namespace ns1\n"
            "- namespace ns2\n"
            "undone: not confirmed in time; deleted 1 pair, removed 2 namespaces",
            "applied on trial for 0.05 s: to keep the changes, press y here, or run `vethctl confirm` elsewhere",
        ),
    ],
    "no agent runs": [
        Step(
            "status",
            2,
            "",
            "vethctl: no agent with the label vpp1 runs on this host\n"
            "  start one: vethctl agent --store dir:PATH --label vpp1",
        ),
        Step(
            "status --status-dir HERE/none",
            2,
            "",
            "vethctl: no agent with the label vpp1 runs on this host; HERE/none does not exist\n"
            "  give the --status-dir with which the agent was started, or leave it out",
        ),
        Step("confirm", 2, "", "vethctl: no trial with the label vpp1 is under way on this host"),
    ],
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_vethctl_prints_these_sentences(
    vethctl: Vethctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scenario: str
) -> None:
    monkeypatch.delenv("VETHLIB_STORE", raising=False)
    for step in SCENARIOS[scenario]:
        argv = step.command.replace("PAIR", str(PAIR)).replace("HERE", str(tmp_path)).split()
        said = vethctl(*argv, stdin=step.stdin)
        assert _without_what_differs(said.out, tmp_path) == step.out, step.command
        assert _without_what_differs(said.err, tmp_path) == step.err, step.command
        assert said.code == step.code, step.command


def _without_what_differs(text: str, here: Path) -> str:
    text = text.replace(str(here), "HERE").removesuffix("\n")
    return re.sub("([0-9a-f]{2}:){5}[0-9a-f]{2}(?=\n|$)", "MAC", re.sub(r"index \d+", "index N", text))


TRIALS = {
    "answered-no": "the answer was no",
    "confirm-undo": "vethctl confirm --undo",
    "failed": "vethctl could not continue",
    "incomplete": "some of the changes could not be made",
    "no-reader": "nobody reads the output",
    "not-confirmed": "not confirmed in time",
    "terminal-gone": "the terminal is gone",
}


def test_a_trial_that_is_undone_has_one_of_these_reasons() -> None:
    answers = [one for one in vars(question).values() if isinstance(one, question.Answer) and one != question.KEEP]
    assert {one.code: one.text for one in answers} == TRIALS
