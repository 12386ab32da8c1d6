"""vethctl status on an etcd, once and followed, with etcdctl as the other one who reads and writes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from tests.backends.etcd import Etcd
from tests.backends.proxy import Proxy
from tests.commands import Said, Vethctl, runner
from tests.live.applying import EXAMPLES, value
from tests.programs import attended
from tests.witness import poll, seen
from vethlib import ns
from vethlib.agent import State
from vethlib.agent.status import Status
from vethlib.agent.stores.etcd import published
from vethlib.agent.stores.etcd.connection import Connection
from vethlib.agent.stores.etcd.store import EtcdStore
from vethlib.agent.stores.keys import presence_key
from vethlib.agent.stores.published import Published

pytestmark = pytest.mark.usefixtures("nothing_open")


ROOT = Path(__file__).parents[2]


KEY = "/vnf-agent/vpp1/linux/config/v1/interface/"


STATUS = "/vnf-agent/vpp1/linux/status/v1/interface/"


ALIVE = "/vnf-agent/vpp1/check/status/v1/agent"


LONG = 1_200_000  # bytes; etcd takes 1.5 MiB


VETHCTL = [sys.executable, "-m", "vethlib"]


@pytest.fixture
def vethctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, etcd: Etcd) -> Vethctl:
    monkeypatch.setenv("VETHLIB_STORE", etcd.url)
    return runner(capsys, monkeypatch)


@pytest.fixture
def pair(vethctl: Vethctl) -> None:
    assert vethctl("put", str(EXAMPLES / "pair")).code == 0


def text(*values: dict[str, Any]) -> str:
    return json.dumps(values[0] if len(values) == 1 else values)


def status(name: str, state: State = State.CONFIGURED, reason: str = "", peer: str = "") -> Status:
    return Status(name, state, reason, time.time(), "netns:ns1", name, peer)


@pytest.fixture
def store(etcd: Etcd) -> Iterator[EtcdStore]:
    """What an agent of the label vpp1 publishes with."""
    store = EtcdStore(etcd.url, "vpp1")
    yield store
    store.close()


def publish(etcd: Etcd, store: EtcdStore, *statuses: Status) -> None:
    """Publish these, and wait for them to be there."""
    store.publish({one.name: one for one in statuses})

    def is_there(one: Status) -> bool:
        return str(one.state) in etcd.ctl("get", STATUS + one.name)

    assert poll(lambda: all(map(is_there, statuses)))


def settled(etcd: Etcd, store: EtcdStore) -> None:
    """Wait until what is said is of all that is configured."""

    def is_so() -> bool:
        store.read()
        store.publish({})
        return _of(etcd, "config") == _of(etcd, "status")

    assert poll(is_so)


def _of(etcd: Etcd, what: str) -> dict[str, int]:
    found = json.loads(etcd.ctl("get", "--prefix", KEY.replace("config", what), "-w", "json")).get("kvs", ())
    revisions = {}
    for one in found:
        name = b64decode(one["key"]).decode().rpartition("/")[2]
        said = json.loads(b64decode(one["value"]))
        revisions[name] = one["mod_revision"] if what == "config" else said["config_revision"]
    return revisions


def test_status_says_what_the_agent_of_the_label_has_published(
    vethctl: Vethctl, etcd: Etcd, pair: None, store: EtcdStore
) -> None:
    publish(etcd, store, status("veth2", peer="veth1"), status("veth1", State.PENDING, "waits", "veth2"))
    settled(etcd, store)
    said = vethctl("status")
    assert (said.code, said.err) == (3, "")
    assert [line.split() for line in said.out.splitlines()] == [
        ["INTERFACE", "NETNS", "LINK", "PEER", "STATE", "SINCE", "REASON"],
        ["veth1", "ns1", "veth1", "veth2", "PENDING", *said.out.splitlines()[1].split()[5:7], "waits"],
        ["veth2", "ns1", "veth2", "veth1", "CONFIGURED", *said.out.splitlines()[2].split()[5:7]],
        ["2", "interfaces:", "1", "PENDING,", "1", "CONFIGURED"],
    ]
    entries = vethctl("status", "--json").json
    revision = _of(etcd, "config")["veth1"]
    assert [(one["name"], one["config_revision"], one["stored_revision"]) for one in entries] == [
        ("veth1", revision, revision),
        ("veth2", revision, revision),
    ]
    assert vethctl("status", "veth2").code == 0
    assert [one["name"] for one in vethctl("status", f"{KEY}veth2", "--json").json] == ["veth2"]
    said = vethctl("status", "nope", "--json")
    assert (said.code, said.json, said.error["code"]) == (1, [], "no-such-interface")


def test_status_tells_what_the_agent_has_yet_to_see(vethctl: Vethctl, etcd: Etcd, pair: None, store: EtcdStore) -> None:
    publish(etcd, store, status("veth1"), status("veth2"))
    settled(etcd, store)
    assert vethctl("status").code == 0
    vethctl("put", "-", stdin=text(value("veth1", "veth2", mtu=1400), value("new", "x")))
    said = vethctl("status")
    assert said.code == 3
    rows = [line.split(maxsplit=2) for line in said.out.splitlines()[1:-1]]
    assert [row[0] for row in rows] == ["new", "veth1", "veth2"]
    assert rows[0][1:] == ["PENDING", "the agent has not read it yet"]
    assert rows[1][2].endswith("the agent has not read its last change yet")
    assert "yet" not in rows[2][2]
    assert (vethctl("status", "veth1").code, vethctl("status", "veth2").code, vethctl("status", "new").code) == (
        3,
        0,
        3,
    )
    new = vethctl("status", "new", "--json").json[0]
    assert (new["state"], new["since"], new["netns"], new["ifindex"]) == ("PENDING", None, None, None)
    publish(etcd, store, status("new"))
    settled(etcd, store)
    assert vethctl("status").code == 0
    vethctl("del", "new")
    said = vethctl("status", "new")
    assert (said.code, said.out.rstrip().endswith("the agent has not read its deletion yet")) == (3, True)


def test_no_agent_is_told_with_what_waits_for_one(vethctl: Vethctl, etcd: Etcd, store: EtcdStore) -> None:
    store.close()
    said = vethctl("status")
    assert said.code == 2
    told = f"no agent with the label vpp1 is alive in {etcd.url}"
    assert said.err.splitlines() == [
        f"vethctl: {told}",
        f"  start one: vethctl agent --store {etcd.url} --label vpp1",
    ]
    vethctl("put", str(EXAMPLES / "pair"))
    said = vethctl("status")
    assert (said.code, said.out, said.err.splitlines()[0]) == (
        2,
        "",
        f"vethctl: {told}; existing pairs stay, and the state of 2 interfaces is unknown",
    )
    said = vethctl("status", "veth1", "--json")
    assert (said.code, said.json, said.error["code"]) == (2, [], "not-running")


JUNK: tuple[dict[str, Any], ...] = (
    {"state": []},
    {"since": 5},
    {"since": "yesterday"},
    {"config_revision": "a"},
    {"reason": 5},
    {"netns": 7},
    {"peer": None},
    {"name": "veth1"},
)


def test_a_status_that_no_agent_writes_is_shown_as_none(
    vethctl: Vethctl, etcd: Etcd, pair: None, store: EtcdStore
) -> None:
    publish(etcd, store, status("veth1"), status("veth2"))
    settled(etcd, store)
    vethctl("put", "-", "--label", "other", stdin=text(value("a", "b")))
    for junk in JUNK:
        etcd.put(STATUS + "veth2", json.dumps(status("veth2").as_dict() | {"config_revision": 1} | junk))
        etcd.put(STATUS.replace("vpp1", "other") + "a", json.dumps(status("a").as_dict() | junk))
        said = vethctl("status")
        assert (said.code, said.err) == (3, "")
        assert [line.split()[0] for line in said.out.splitlines()[1:-1]] == ["veth1", "veth2"]
        assert said.out.splitlines()[-2].endswith("the agent has not read it yet")
        found = {one["label"]: one for one in vethctl("status", "--all-labels", "--json").json}
        assert (found["vpp1"]["states"], found["vpp1"]["untold"]) == ({"CONFIGURED": 1}, 1)
        assert (found["other"]["states"], found["other"]["untold"]) == ({}, 1)
        assert "1 unknown" in vethctl("status", "--all-labels").out


@pytest.mark.parametrize("since", ["1e30", "1700000000000000000", "-1", "NaN", "true", '"x"', "253402300799.9999999"])
def test_an_agent_that_is_alive_since_a_time_that_is_none_is_alive(vethctl: Vethctl, etcd: Etcd, since: str) -> None:
    etcd.put(ALIVE, f'{{"pid": true, "host": "h", "start_time": {since}}}')
    assert vethctl("status").code == 0
    assert vethctl("status", "--all-labels").out.splitlines()[1].split() == ["vpp1", "h"]
    (found,) = vethctl("status", "--all-labels", "--json").json
    assert found["agent"] == {"host": "h", "pid": 0, "since": None}


def test_what_is_none_of_an_agents_is_passed_over(vethctl: Vethctl, etcd: Etcd, store: EtcdStore) -> None:
    publish(etcd, store, status("veth1"))
    odd: tuple[str | bytes, ...] = ("{", "[]", "{}", b"\xff", "[" * 100_000)
    for name, raw in zip("abcde", odd, strict=True):
        etcd.put(STATUS + name, raw)
    assert [one["name"] for one in vethctl("status", "--json").json] == ["veth1"]
    etcd.put(ALIVE.replace("vpp1", "vpp2"), '{"pid":42,"host":"h2"}')
    junk = ("{", "[]", "[" * 100_000, '{"state":1}', '{"pid":"x","host":7,"start_time":"?"}', "x" * LONG)
    for raw in junk:
        etcd.fill({ALIVE: raw})
        assert vethctl("status").code == 0
        said = vethctl("status", "--all-labels")
        assert said.code == 0
        assert [line.split()[0] for line in said.out.splitlines()[1:]] == ["vpp1", "vpp2"]


def test_what_cannot_be_read_of_one_label_is_an_error_of_its_line(
    vethctl: Vethctl, etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    for label in ("a", "b", "c"):
        etcd.put(ALIVE.replace("vpp1", label), '{"pid":42,"host":"h2"}')
    read = published._read

    def refuse(connection: Connection, label: str) -> Published:
        if label == "b":
            raise connection.refused("PERMISSION_DENIED", "etcdserver: permission denied")
        return read(connection, label)

    monkeypatch.setattr(published, "_read", refuse)
    said = vethctl("status", "--all-labels")
    assert said.code == 2
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    assert (lines[1], lines[3]) == ("a h2 42", "c h2 42")
    assert lines[2].startswith("b unknown ")
    assert lines[2].endswith("grant its role the keys below /vnf-agent/")
    said = vethctl("status", "--all-labels", "--json")
    assert said.code == 2
    labels = {one["label"]: one for one in said.json}
    assert [labels[label]["agent"]["pid"] for label in "ac"] == [42, 42]
    assert labels["b"]["agent"] is None
    assert labels["b"]["error"]["code"] == "not-permitted"
    assert "error" not in labels["a"]


def test_of_any_number_of_agents_of_a_label_a_few_are_named(vethctl: Vethctl, etcd: Etcd) -> None:
    etcd.put(ALIVE, '{"pid":7,"host":"h"}')
    hosts = [f"h{number}" + "x" * 5000 * (number == 0) for number in range(100)]
    etcd.fill(
        {presence_key("vpp1", f"{number:03}"): json.dumps({"pid": 7, "host": h}) for number, h in enumerate(hosts)}
    )
    for argv in ((), ("--all-labels",)):
        said = vethctl("status", *argv)
        assert said.code == 0
        assert said.err.count("process 7 on") == 8
        assert len(said.err) < 1500


@pytest.mark.parametrize("label", [(), ("--all-labels",)], ids=["one label", "all"])
@pytest.mark.parametrize(
    ("alive", "present", "agents"),
    [
        pytest.param(1000, [1000, 1001], 2, id="clones"),
        pytest.param(1001, [1000, 1001], 2, id="clones, the other one has written last"),
        pytest.param(1000, [1000, 1000], 2, id="clones that were started at the same time"),
        pytest.param(1000, [1000, 1001, 1002], 3, id="three"),
        pytest.param(1000, [1000], 1, id="one"),
        pytest.param(1000, [1005], 1, id="one that was restarted between two readings"),
        pytest.param(1000, [1001, 1005], 2, id="clones, of which one was restarted between two readings"),
        pytest.param(1000, [], 1, id="one that may not write its own key"),
    ],
)
def test_agents_with_the_process_number_and_the_host_name_of_another_are_shown(
    vethctl: Vethctl, etcd: Etcd, label: tuple[str, ...], alive: int, present: list[int], agents: int
) -> None:
    def started(at: int) -> str:
        return json.dumps({"host": "gw", "pid": 1, "start_time": at})

    etcd.put(ALIVE, started(alive))
    etcd.fill({presence_key("vpp1", f"gw:1:{boot}"): started(at) for boot, at in enumerate(present)})
    said = vethctl("status", *label)
    assert said.code == 0
    assert said.err.count("process 1 on gw") == (agents if agents > 1 else 0)


def test_who_may_only_look_at_statuses_is_shown_them(vethctl: Vethctl, etcd_with_auth: Etcd) -> None:
    etcd_with_auth.add_user("eye", "pass", STATUS, ALIVE, kind="read")
    etcd_with_auth.put(ALIVE, '{"pid":7,"host":"h"}')
    entry = status("veth1").as_dict() | {"config_revision": 1}
    etcd_with_auth.put(STATUS + "veth1", json.dumps(entry))
    etcd_with_auth.put(KEY + "veth1", text(value("veth1", "x")))
    said = vethctl("status", "--json", "--store", f"etcd://eye:pass@{etcd_with_auth.endpoint}")
    assert (said.code, said.json) == (0, [entry])
    said = vethctl("list", "--store", f"etcd://eye:pass@{etcd_with_auth.endpoint}", "--json")
    assert said.code == 2
    assert [code for _, _, code, _ in said.reasons] == ["not-permitted"]


def test_status_is_that_of_this_host_where_no_etcd_is_named(
    vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "veth1.json").write_text(json.dumps(status("veth1").as_dict()))
    for store in (f"dir:{tmp_path}/conf", ""):
        said = vethctl("status", "--store", store, "--status-dir", str(tmp_path), "--json")
        assert [one["name"] for one in said.json] == ["veth1"]
        assert "runs on this host; the statuses of the last one are shown" in said.err
    # What is named exactly is looked at, whatever the environment says.
    assert len(vethctl("status", "--status-dir", str(tmp_path), "--json").json) == 1


def test_all_labels_are_shown_a_line_each(vethctl: Vethctl, etcd: Etcd, pair: None, store: EtcdStore) -> None:
    publish(etcd, store, status("veth1"), status("veth2", State.FAILED, "no such device"))
    settled(etcd, store)
    vethctl("put", "-", "--label", "other", stdin=text(value("a", "b"), value("b", "a")))
    etcd.put("/vnf-agent/x y/linux/config/v1/interface/a", "{}")
    etcd.put("/vnf-agent/third/vpp/config/v2/interfaces/a", "{}")
    etcd.put("/vnf-agent/vpp10/check/status/v1/agent", '{"pid":42,"host":"h2"}')
    said = vethctl("status", "--all-labels")
    assert said.code == 2
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    assert lines[0] == "LABEL AGENT SINCE INTERFACES WORST"
    assert lines[1] == "other no agent 2 unknown"
    assert lines[2].startswith(f"vpp1 {os.uname().nodename} {os.getpid()} ")
    assert lines[2].endswith(" 1 CONFIGURED, 1 FAILED veth2: no such device")
    assert lines[3:] == ["vpp10 h2 42"]
    found = {one["label"]: one for one in vethctl("status", "--all-labels", "--json").json}
    assert found["other"] == {"label": "other", "agent": None, "states": {}, "untold": 2, "worst": None}
    assert found["vpp1"]["states"] == {"CONFIGURED": 1, "FAILED": 1}
    assert found["vpp1"]["worst"] == {"name": "veth2", "state": "FAILED", "code": "", "reason": "no such device"}
    assert found["vpp10"]["agent"] == {"host": "h2", "pid": 42, "since": None}
    etcd.delete_prefix("/vnf-agent/other/")
    publish(etcd, store, status("veth2"))
    assert vethctl("status", "--all-labels").code == 0
    for argv in (["veth1"], ["--watch"], ["--store", "dir:/x"]):
        said = vethctl("status", "--all-labels", *argv, "--json")
        assert (said.code, said.error["code"], said.error["field"]) == (1, "usage", "--all-labels")


class Watching:
    """vethctl status --watch, whose lines are read as they come."""

    def __init__(self, url: str, *options: str) -> None:
        command = [*VETHCTL, "status", "--watch", "--store", url, *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        self.out: list[str] = []
        self.err: list[str] = []
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        pipes = ((self.process.stdout, self.out), (self.process.stderr, self.err))
        self._threads = [threading.Thread(target=_collect, args=pipe) for pipe in pipes]
        for thread in self._threads:
            thread.start()

    def wait_for(self, *lines: str) -> None:
        """Wait for so many lines more, and for them to be these."""
        assert poll(lambda: len(self.out) >= len(lines)), (self.out, self.err)
        assert self.out[: len(lines)] == list(lines)
        del self.out[: len(lines)]

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        code = self.process.wait(60)
        for thread in self._threads:
            thread.join()
        return code


def _collect(pipe: IO[str], lines: list[str]) -> None:
    with pipe:
        for line in pipe:
            lines.append(line.rstrip("\n"))


@pytest.fixture
def watch() -> Iterator[Callable[..., Watching]]:
    made: list[Watching] = []

    def begin(url: str, *options: str) -> Watching:
        made.append(Watching(url, *options))
        return made[-1]

    yield begin
    for one in made:
        if one.process.poll() is None:
            one.end(signal.SIGKILL)


def test_watch_writes_a_line_for_each_change(
    etcd: Etcd, pair: None, store: EtcdStore, watch: Callable[..., Watching]
) -> None:
    publish(etcd, store, status("veth1"), status("veth2"))
    watching = watch(etcd.url)
    watching.wait_for("veth1 CONFIGURED", "veth2 CONFIGURED")
    publish(etcd, store, status("veth1", State.PENDING, "waits"))
    watching.wait_for("veth1 PENDING waits")
    store.publish({"veth2": None})
    watching.wait_for("veth2 removed")
    store.close()  # which deletes the statuses, too
    assert poll(lambda: len(watching.err) == 1)
    assert (watching.end(), watching.out) == (130, [])


def test_watch_of_one_interface_as_json_tells_of_no_other(
    etcd: Etcd, pair: None, store: EtcdStore, watch: Callable[..., Watching]
) -> None:
    publish(etcd, store, status("veth1"), status("veth2"))
    watching = watch(etcd.url, f"{KEY}veth2", "--json")
    assert poll(lambda: len(watching.out) == 1)
    publish(etcd, store, status("veth1", State.PENDING), status("veth2", State.PENDING))
    assert poll(lambda: len(watching.out) == 2)
    assert [json.loads(line)["state"] for line in watching.out] == ["CONFIGURED", "PENDING"]
    assert {json.loads(line)["name"] for line in watching.out} == {"veth2"}


def test_watch_goes_on_when_the_connection_was_lost_and_says_so(
    etcd: Etcd, pair: None, store: EtcdStore, watch: Callable[..., Watching]
) -> None:
    publish(etcd, store, status("veth1"), status("veth2"))
    with Proxy(etcd.address) as proxy:
        watching = watch(proxy.url)
        watching.wait_for("veth1 CONFIGURED", "veth2 CONFIGURED")
        proxy.refuse()
        proxy.cut()
        assert poll(lambda: any("no etcd listens there; trying again" in line for line in watching.err))
        publish(etcd, store, status("veth2", State.RETRYING, "once more"))
        etcd.compact()
        proxy.accept()
        watching.wait_for("veth2 RETRYING once more")
        assert poll(lambda: watching.err[-1] == "connected again")
        assert watching.err[0].startswith(f"warning: {proxy.endpoint}: ")
        assert watching.end() == 130


def test_watch_draws_a_terminal_anew_with_who_is_alive(etcd: Etcd, pair: None, store: EtcdStore) -> None:
    publish(etcd, store, status("veth1"), status("veth2"))
    ours, theirs = pty.openpty()
    command = [*VETHCTL, "status", "--watch", "--store", etcd.url]
    seen_so_far = b""
    with attended(subprocess.Popen(command, stdout=theirs, cwd=ROOT, env=os.environ | {"TERM": "xterm"})) as watching:
        os.close(theirs)
        while b"veth2" not in seen_so_far:
            seen_so_far += os.read(ours, 65536)
        store.close()
        while b"no agent is running" not in seen_so_far:
            seen_so_far += os.read(ours, 65536)
        watching.send_signal(signal.SIGTERM)
    os.close(ours)
    assert f"agent {os.getpid()} on {os.uname().nodename}".encode() in seen_so_far
    assert seen_so_far.count(b"\x1b[H\x1b[J") >= 2


def test_what_is_put_is_built_and_told(vethctl: Vethctl, etcd: Etcd, tmp_path: Path) -> None:
    """vethctl put, an agent, and vethctl status that waits for it."""
    command = [*VETHCTL, "agent", "--docker", "off", "--status-dir", str(tmp_path), "--store", etcd.url]
    log = (tmp_path / "log").open("w")
    with log, attended(subprocess.Popen(command, stderr=log, cwd=ROOT)) as agent:
        try:
            assert vethctl("put", str(EXAMPLES / "pair")).code == 0
            assert poll(lambda: vethctl("status").code == 0), (tmp_path / "log").read_text()
            assert seen("veth1", "ns1")["mtu"] == 1500
            changed = text(value("veth1", "veth2", "ns1", mtu=1400), value("veth2", "veth1", "ns2", mtu=1400))
            assert vethctl("put", "-", stdin=changed).code == 0
            assert poll(lambda: vethctl("status", "veth1").code == 0)
            assert seen("veth1", "ns1")["mtu"] == 1400
            for again in (value("veth1", "veth2", "ns1", mtu=1400, description="x"), value("veth9", "veth2", mtu=5)):
                etcd.put(KEY + again["name"], text(again))
                assert poll(lambda: _of(etcd, "config") == _of(etcd, "status"))
            assert vethctl("status", "veth1").code == 0
            assert "yet to see" not in vethctl("status").out
            assert vethctl("del", "veth1").code == 0
            assert poll(lambda: "peer veth1 is not configured" in vethctl("status").out)
        finally:
            agent.terminate()
            agent.wait(60)
            for netns in ("ns1", "ns2"):
                ns.remove(netns)
    said: Said = vethctl("status")
    assert said.code == 2
    assert said.err.splitlines()[0].endswith("; existing pairs stay, and the state of 2 interfaces is unknown")
