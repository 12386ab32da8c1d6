"""vethctl apply and diff, end to end: effects, output and exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Vethctl
from tests.live.applying import EXAMPLES, Write, value
from tests.live.offloads import set_offload
from tests.needs import kernel_is
from tests.programs import attended
from tests.witness import host_state, ip, names, seen
from vethlib import ns
from vethlib.agent.host.execution import execute
from vethlib.errors import NotPermitted

PAIR = str(EXAMPLES / "pair")


def test_apply_says_what_it_did_and_the_second_time_that_there_was_nothing(vethctl: Vethctl) -> None:
    first = vethctl("apply", PAIR)
    assert (first.code, first.err) == (0, "")
    assert [line[0] for line in first.out.splitlines()[:-1]] == ["+", "+", "+", " ", " "]
    second = vethctl("apply", PAIR)
    assert (second.code, len(second.out.splitlines()), second.err) == (0, 1, "")
    assert (names("ns1"), names("ns2")) == ({"veth1"}, {"veth2"})


def test_apply_prints_its_operations_as_json(vethctl: Vethctl) -> None:
    said = vethctl("apply", PAIR, "--json")
    assert [(one["op"], one["interface"], one["netns"]) for one in said.json] == [
        ("add-netns", "", "netns:ns1"),
        ("add-netns", "", "netns:ns2"),
        ("create", "veth1", "netns:ns1"),
        ("create", "veth2", "netns:ns2"),
    ]
    assert all(list(one) == ["op", "interface", "netns", "changes"] for one in said.json)
    assert said.json[2]["changes"]["mac"] == [None, "d2:74:8c:12:67:d2"]
    assert vethctl("apply", PAIR, "--json").json == []


def test_apply_names_every_changed_value(vethctl: Vethctl, write: Write) -> None:
    ends = [value("a", "b", "ns1", mtu=1400, ip_addresses=["10.0.0.1/24"]), value("b", "a")]
    vethctl("apply", write(*ends))
    ends[0] |= {"mtu": 1300, "ip_addresses": ["10.0.0.2/24"], "host_if_name": "eth0", "enabled": False}
    said = vethctl("apply", write(*ends))
    line = "~ 'a' in netns:ns1: name a → eth0, mtu 1400 → 1300, up → down, -10.0.0.1/24, +10.0.0.2/24"
    assert said.out.splitlines()[0] == line
    assert len(said.out.splitlines()) == 2
    (changed,) = vethctl("diff", write(ends[0] | {"mtu": 1200}, ends[1]), "--json").json
    assert changed == {"op": "change", "interface": "a", "netns": "netns:ns1", "changes": {"mtu": [1300, 1200]}}


def test_prune_removes_what_the_files_no_longer_name(vethctl: Vethctl, write: Write) -> None:
    vethctl("apply", PAIR)
    other = write(value("a", "b", "ns1"), value("b", "a", num_queues=1))
    assert "veth1" not in vethctl("apply", other).out
    said = vethctl("apply", other, "--prune")
    assert [line[0] for line in said.out.splitlines()[:-1]] == ["-"]
    assert names("ns1") == {"a"}
    assert vethctl("apply", str(EXAMPLES / "nothing"), "--prune").code == 1
    assert names("ns1") == {"a"}


def test_the_label_says_whose_pairs_they_are(vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch) -> None:
    vethctl("apply", PAIR, "--label", "mine")
    assert seen("veth2", "ns2")["ifalias"] == "vethlib label=mine name=veth2"
    said = vethctl("apply", PAIR, "--json")
    assert said.code == 2
    assert said.reasons == [("failed", name, "link-of-other-label", "mine") for name in ("veth1", "veth2")]
    monkeypatch.setenv("MICROSERVICE_LABEL", "mine")
    assert vethctl("diff", PAIR).code == 0
    monkeypatch.setenv("VETHLIB_LABEL", "other")
    assert vethctl("diff", PAIR).code == 1
    assert vethctl("diff", PAIR, "--label=mine").code == 0


def test_a_label_that_cannot_be_one_is_refused(vethctl: Vethctl) -> None:
    for command in ("apply", "diff"):
        said = vethctl(command, PAIR, "--label", "a b", "--json")
        assert (said.code, said.error["field"], said.error["code"]) == (1, "--label", "invalid-value")
    assert ns.names() == []


def test_a_foreign_link_in_the_way_is_refused_and_untouched(vethctl: Vethctl, blue: str) -> None:
    ip("link", "add", "name", "a", "type", "veth", "peer", "name", "b")
    before = host_state()
    values = json.dumps([value("a", "z"), value("z", "a")])
    said = vethctl("apply", "-", "--json", stdin=values)
    assert (said.code, said.json) == (2, [])
    assert [(one["code"], one["field"]) for one in said.errors] == [("failed", "a"), ("pending", "z")]
    assert [reason[2:] for reason in said.reasons] == [("link-foreign", "a"), ("peer-failed", "a")]
    assert host_state() == before


def test_what_the_kernel_refuses_is_told_once_for_both_ends(
    vethctl: Vethctl, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(value("a", "b", "ns1"), value("b", "a"), value("x", "y", "ns1"), value("y", "x"))

    def meanwhile(*args: Any, **kwargs: Any) -> Any:
        ip("link", "add", "name", "b", "type", "veth", "peer", "name", "theirs")
        return execute(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr("vethlib.cli.applying.settling.execute", meanwhile)
        said = vethctl("apply", path, "--json")
    assert (said.code, said.error["code"]) == (2, "link-exists")
    assert [one["op"] for one in said.json] == ["add-netns", "create", "create"]
    assert (names("ns1"), names()) == ({"x"}, {"y", "b", "theirs"})


def test_pending_is_code_three_with_the_reason(vethctl: Vethctl) -> None:
    said = vethctl("apply", f"{PAIR}/veth1.json")
    assert said.code == 3
    said = vethctl("--json", "apply", f"{PAIR}/veth1.json")
    assert (said.code, said.json) == (3, [])
    assert said.reasons == [("pending", "veth1", "peer-not-configured", "veth2")]


def test_a_timeout_waits_for_a_namespace_that_somebody_adds(vethctl: Vethctl) -> None:
    def add() -> None:
        for name in ("ns1", "ns2"):
            time.sleep(0.1)
            ns.Netns.create(name).close()

    adding = threading.Thread(target=add)
    adding.start()
    said = vethctl("apply", PAIR, "--missing-netns", "wait", "--timeout", "60")
    adding.join()
    assert said.code == 0
    assert (names("ns1"), names("ns2")) == ({"veth1"}, {"veth2"})


def test_a_timeout_ends_when_nothing_comes(vethctl: Vethctl) -> None:
    started = time.monotonic()
    assert vethctl("apply", PAIR, "--missing-netns=wait", "--timeout=0.3").code == 3
    assert 0.3 <= time.monotonic() - started < 20
    assert ns.names() == []


def test_what_is_done_is_told_before_the_rest_is_waited_for(vethctl: Vethctl, tmp_path: Path) -> None:
    missing: dict[str, Any] = {"namespace": {"type": 3, "filepath": str(tmp_path / "missing")}}
    values = [value("a", "b"), value("b", "a"), value("c", "d", **missing), value("d", "c")]
    (tmp_path / "two.json").write_text(json.dumps(values))
    command = [sys.executable, "-m", "vethlib", "apply", str(tmp_path / "two.json"), "--timeout", "600s"]
    pipe = subprocess.PIPE
    with attended(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)) as applying:
        assert applying.stdout
        assert applying.stderr
        done = [applying.stdout.readline() for _ in range(3)]
        waits = applying.stderr.readline()
        applying.send_signal(signal.SIGINT)
        rest = applying.communicate()
    assert [line.split()[1].strip("'") for line in done][1:] == ["up", "up"]
    assert "missing" in waits
    assert (applying.returncode, rest) == (130, ("", ""))
    assert names() == {"a", "b"}


def test_a_namespace_that_looks_like_another_is_told_once_however_often_it_cannot_be_created(
    vethctl: Vethctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    class Refusing:
        @staticmethod
        def create(ref: str, *, up: bool) -> None:
            tried.append(ref)
            raise NotPermitted("not now")

    ns.Netns.create("production").close()
    monkeypatch.setattr("vethlib.agent.host.namespaces.Netns", Refusing)
    missing: dict[str, Any] = {"namespace": {"type": 3, "filepath": str(tmp_path / "missing")}}
    values = [value("a", "b", "prodution"), value("b", "a"), value("c", "d", **missing), value("d", "c")]
    said = vethctl("apply", "-", "--timeout", "1.5", "--json", stdin=json.dumps(values))
    assert len(tried) > 1
    assert [error["code"] for error in said.errors].count("similar-netns") == 1


def test_a_timeout_is_not_spent_on_what_the_files_lack(vethctl: Vethctl) -> None:
    started = time.monotonic()
    assert vethctl("apply", f"{PAIR}/veth1.json", "--timeout=60").code == 3
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("command", [["apply", "--dry-run"], ["diff"]])
def test_a_look_ahead_changes_nothing_and_adds_no_namespace(vethctl: Vethctl, command: list[str]) -> None:
    said = vethctl(*command, PAIR)
    assert said.code == (1 if command == ["diff"] else 0)
    assert "@@ veth1 in netns:ns1 @@\n+peer veth2 in netns:ns2\n+mac d2:74:8c:12:67:d2\n" in said.out
    word = "different" if command == ["diff"] else "dry run"
    assert said.out.splitlines()[-1] == f"{word}: would add 2 namespaces, create 1 pair"
    assert (ns.names(), names()) == ([], set())
    assert vethctl(*command, PAIR, "--json").json[0]["op"] == "add-netns"
    assert ns.names() == []


def test_a_dry_run_of_what_is_pending_says_so(vethctl: Vethctl) -> None:
    said = vethctl("apply", PAIR, "--dry-run", "--missing-netns=wait", "--json")
    assert said.code == 3
    assert said.reasons[0] == ("pending", "veth1", "netns-not-found", "netns:ns1")


def test_diff_is_zero_when_the_host_is_as_the_files_say(vethctl: Vethctl) -> None:
    vethctl("apply", PAIR)
    same = vethctl("diff", PAIR)
    assert (same.code, len(same.out.splitlines())) == (0, 1)
    assert vethctl("diff", PAIR, "--json").json == []


def test_diff_reads_like_a_unified_diff(vethctl: Vethctl, write: Write) -> None:
    one = value("a", "b", "ns1", mtu=1500, ip_addresses=["192.168.1.1/24", "10.0.0.1/24"])
    vethctl("apply", write(one, value("b", "a")))
    path = write(one | {"mtu": 9000, "enabled": False, "ip_addresses": ["10.0.0.1/24"]}, value("b", "a"))
    assert vethctl("diff", path).out.splitlines() == [
        "--- host",
        f"+++ {path}",
        "@@ a in netns:ns1 @@",
        " peer b in home",
        "-mtu 1500",
        "+mtu 9000",
        "-up",
        "+down",
        "-192.168.1.1/24",
        "different: would change 1 link",
    ]


def test_diff_shows_both_ends_of_what_prune_would_delete(vethctl: Vethctl, write: Write) -> None:
    mac = "02:00:00:00:00:0a"
    vethctl("apply", write(value("a", "b", "ns1", phys_address=mac, ip_addresses=["10.0.0.1/24"]), value("b", "a")))
    lines = vethctl("diff", write(), "--prune").out.splitlines()
    assert lines[2:8] == [
        "@@ a in netns:ns1 @@ a is not configured",
        "-peer b in home",
        f"-mac {mac}",
        "-mtu 1500",
        "-up",
        "-10.0.0.1/24",
    ]
    assert lines[8:10] == ["@@ b in home @@ a is not configured", "-peer a in netns:ns1"]
    assert lines[-1] == "different: would delete 1 pair"


def test_the_colours_of_a_diff_are_those_of_its_signs(vethctl: Vethctl) -> None:
    lines = vethctl("--color=always", "diff", PAIR).out.splitlines()
    assert lines[0] == "\033[1m--- host\033[0m"
    assert lines[3] == "\033[32m+namespace ns1\033[0m"
    assert lines[6] == "\033[36m@@ veth1 in netns:ns1 @@\033[0m"


def test_diff_shows_a_json_consumer_what_is_pending(vethctl: Vethctl) -> None:
    said = vethctl("diff", f"{PAIR}/veth1.json", "--json")
    assert (said.code, said.json, said.error["code"]) == (1, [], "pending")
    assert vethctl("diff", f"{PAIR}/veth1.json").out == ""


def test_nothing_is_applied_of_a_configuration_with_an_error(vethctl: Vethctl) -> None:
    values = json.dumps([value("a", "b"), value("b", "a"), value("c", "d", mtu=5)])
    for command in ("apply", "diff"):
        said = vethctl(command, "-", "--json", stdin=values)
        assert (said.code, said.out) == (1, "")
        assert (said.error["field"], said.error["code"]) == ("mtu", "invalid-value")
        assert said.error["error"].startswith("stdin[2]: c: ")
    assert names() == set()


def test_warnings_reach_people_and_json_consumers(vethctl: Vethctl, tmp_path: Path) -> None:
    ends = [value("a", "b") | {"linux_namespace": {"type": 2, "name": "ns1"}}, value("b", "a")]
    said = vethctl("apply", "-", stdin=json.dumps(ends))
    assert said.code == 0
    assert said.err.startswith("warning: stdin[0]: a: linux_namespace ")
    assert vethctl("apply", "-", "--json", stdin=json.dumps(ends)).error["code"] == "warning"
    assert vethctl("apply", str(tmp_path)).err.startswith(f"warning: {tmp_path} ")


def test_addresses_have_the_attributes_that_were_given(vethctl: Vethctl, blue: str) -> None:
    given = ("--a-addr", "10.0.0.1/24 brd + label a:x", "--b-addr", "2001:db8::1/64 nodad")
    assert vethctl("create", "a@blue", "b", *given).code == 0
    (one,) = [one for one in seen("a", "blue")["addr_info"] if one["family"] == "inet"]
    assert (one["broadcast"], one["label"]) == ("10.0.0.255", "a:x")
    assert vethctl("set", "a@blue", "--addr", "10.0.0.1 peer 10.0.0.2/32").code == 0
    (one,) = [one for one in seen("a", "blue")["addr_info"] if one["family"] == "inet"]
    assert one["address"] == "10.0.0.2"
    assert vethctl("set", "a@blue", "--addr", "10.0.0.1/24 dev a").code != 0


def test_offload_is_worded_in_differences(vethctl: Vethctl, write: Write) -> None:
    on, off = ([value("a", "b", offload=each), value("b", "a")] for each in (True, False))
    vethctl("apply", write(*on))
    # Before Linux 5.13, a new veth has rx-gro, too, which is then without effect.
    new = "on" if kernel_is("5.13") else "on but +rx-gro"
    assert f"offload {new} → off" in vethctl("apply", write(*off)).out
    set_offload("a", "", "tx", on=True)
    assert "offload partly on → off" in vethctl("apply", write(*off)).out
    vethctl("set", "a", "--offload", "on")
    set_offload("a", "", "rx", on=False)
    assert "-offload on but -rx-checksum\n+offload on\n" in vethctl("diff", write(*on)).out
