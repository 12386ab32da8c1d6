"""Statuses of an agent in etcd stay there, and stay right, whatever others write, delete or refuse."""

from __future__ import annotations

import json
import logging
import os
import platform
from contextlib import closing

import pytest

from tests.backends.etcd import ROOT, Etcd
from tests.backends.etcd_consumer import LABEL, Consumer, changes, key, many, text
from tests.backends.etcd_fixtures import Follow, MakeEtcd
from tests.commands import runner
from tests.witness import poll
from vethlib.agent import State
from vethlib.agent.limits import Limits
from vethlib.agent.status import Status
from vethlib.agent.stores.etcd import publishing
from vethlib.agent.stores.etcd.store import EtcdStore
from vethlib.agent.stores.keys import liveness_key, presence_key, status_key
from vethlib.agent.stores.protocol import Outage

ALIVE = liveness_key(LABEL)
PRESENT = presence_key(LABEL, "")
STATUSES = status_key(LABEL, "")
OFTEN = "?lease=2&heartbeat=0.1"  # so what was written is looked at every 1.5 seconds


def status(name: str, reason: str = "") -> Status:
    return Status(name, State.PENDING if reason else State.CONFIGURED, reason, 1_700_000_000.25)


def said(etcd: Etcd) -> dict[str, str]:
    found = {each: json.loads(raw) for each, raw in etcd.values(STATUSES).items()}
    return {entry["name"]: entry["reason"] for entry in found.values()}


def comes_to_say(etcd: Etcd, expected: dict[str, str], timeout: float = 30.0) -> None:
    poll(lambda: said(etcd) == expected, timeout)
    assert said(etcd) == expected


def begun(etcd: Etcd, follow: Follow, url: str = "") -> Consumer:
    """One who has said something of v0 and v1."""
    consumer = follow(url or f"{etcd.url}{OFTEN}")
    consumer.hear()
    consumer.store.publish({"v0": status("v0"), "v1": status("v1", "waits")})
    comes_to_say(etcd, {"v0": "", "v1": "waits"})
    return consumer


def test_what_somebody_deletes_is_said_again(etcd: Etcd, follow: Follow) -> None:
    begun(etcd, follow)
    etcd.delete(STATUSES + "v1")
    comes_to_say(etcd, {"v0": "", "v1": "waits"})
    etcd.delete_prefix(f"/vnf-agent/{LABEL}/")
    comes_to_say(etcd, {"v0": "", "v1": "waits"})
    assert poll(lambda: bool(etcd.values(ALIVE)))


def test_what_somebody_writes_over_is_said_again_also_where_as_many_are_there_as_before(
    etcd: Etcd, follow: Follow
) -> None:
    """As when the keys of a backup are written back."""
    begun(etcd, follow)
    etcd.put(STATUSES + "v1", json.dumps({"name": "v1", "reason": "of the backup"}))
    comes_to_say(etcd, {"v0": "", "v1": "waits"}, 10.0)
    etcd.delete(STATUSES + "v0")
    etcd.put(STATUSES + "stranger", json.dumps({"name": "stranger", "reason": ""}))
    comes_to_say(etcd, {"v0": "", "v1": "waits"}, 10.0)


def test_what_somebody_adds_goes(etcd: Etcd, follow: Follow) -> None:
    begun(etcd, follow)
    etcd.put(STATUSES + "stranger", json.dumps({"name": "stranger", "reason": ""}))
    comes_to_say(etcd, {"v0": "", "v1": "waits"})


def test_more_than_can_be_read_goes_by_and_by(etcd: Etcd, nothing_open: None) -> None:
    """Otherwise all would be said again at each check."""
    etcd.fill({f"{STATUSES}stranger{number}": "{}" for number in range(30)})
    with closing(EtcdStore(f"{etcd.url}{OFTEN}", LABEL, limits=Limits(store_keys=12))) as store:
        store.publish({"v0": status("v0")})
        assert poll(lambda: list(etcd.values(STATUSES)) == [f"{STATUSES}v0".encode()], 15.0)


def test_after_another_agent_of_the_label_has_come_and_gone_all_is_said_again(
    etcd: Etcd, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "vethlib.agent"):
        begun(etcd, follow)
        mine = etcd.values(ALIVE)
        other = follow(f"{etcd.url}{OFTEN}")
        other.hear()
        other.store.publish({"v0": status("v0", "other")})
        assert poll(lambda: "another agent has the label tested, too" in caplog.text)
        other.store.close()
        comes_to_say(etcd, {"v0": "", "v1": "waits"})
    assert etcd.values(ALIVE) == mine


def test_hosts_of_one_name_are_two_all_the_same(etcd: Etcd, follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(boot: str) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(publishing, "boot_id", lambda: boot)
            follow(etcd.url).hear()

    for boot in ("1", "2"):  # clones of one machine, whose first network namespaces have the same inode
        begin(boot)
    assert poll(lambda: len(etcd.values(PRESENT)) == 2)


def test_agents_of_one_label_on_two_hosts_hear_of_each_other_at_once_and_status_tells_of_both(
    etcd: Etcd,
    follow: Follow,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    vethctl = runner(capsys, monkeypatch)

    def begin(host: str) -> Consumer:
        with monkeypatch.context() as patch:
            patch.setattr(publishing, "_this_agent", lambda: f"{host}:4026531840")
            patch.setattr(platform, "node", lambda: host)
            consumer = follow(etcd.url)
            consumer.hear()
            assert poll(lambda: f"/{host}:".encode() in b"".join(etcd.values(PRESENT)))
        return consumer

    with caplog.at_level(logging.INFO, "vethlib.agent"):
        first = begin("h1")
        assert vethctl("status", "--store", etcd.url, "--label", LABEL).err == "no interface is configured\n"
        second = begin("h2")
        told = [f"another agent has the label tested, too: process {os.getpid()} on {host}" for host in ("h1", "h2")]
        assert poll(lambda: all(one in caplog.text for one in told)), caplog.text
        assert caplog.text.count("another agent") == 2
        for argv in (["--label", LABEL], ["--all-labels"]):
            said = vethctl("status", "--store", etcd.url, *argv)
            assert f"warning: 2 agents have the label {LABEL}, and overwrite each other's status: process" in said.err
        second.store.close()
        assert poll(lambda: f"no other agent has the label {LABEL} now" in caplog.text)
        assert "agents have" not in vethctl("status", "--store", etcd.url, "--label", LABEL).err
        first.store.close()
    assert etcd.values(PRESENT) == {}


@pytest.mark.parametrize(("host", "warned"), [("elsewhere", True), (platform.node(), False)])
def test_who_begins_where_another_host_s_agent_is_alive_says_so_at_once(
    etcd: Etcd, follow: Follow, caplog: pytest.LogCaptureFixture, host: str, warned: bool
) -> None:
    """One on this host may be a former run, whose lease has yet to end: only one that comes again is another."""
    etcd.put(ALIVE, json.dumps({"host": host, "pid": 42}))
    with caplog.at_level(logging.WARNING, "vethlib.agent"):
        begun(etcd, follow, etcd.url)
    assert ("another agent has the label tested, too: process 42 on elsewhere" in caplog.text) is warned


def test_a_key_that_is_no_text_among_the_statuses_goes_and_harms_none(etcd: Etcd, follow: Follow) -> None:
    key = (STATUSES.encode() + b"\xff").decode(errors="surrogateescape")
    etcd.ctl("put", key, json.dumps({"name": "whatever", "reason": ""}))
    consumer = begun(etcd, follow)
    assert STATUSES.encode() + b"\xff" not in etcd.values(STATUSES)
    assert consumer.wait_a_while() == []


def test_the_same_status_again_is_not_written_again(etcd: Etcd, follow: Follow) -> None:
    consumer = begun(etcd, follow)
    before = etcd.revision
    for _ in range(5):
        consumer.store.publish({"v0": status("v0"), "v1": status("v1", "waits")})
    consumer.store.publish({"v1": status("v1", "still")})
    comes_to_say(etcd, {"v0": "", "v1": "still"})
    assert etcd.revision == before + 1


def test_a_full_etcd_is_followed_all_the_same_and_written_to_when_it_has_room(
    make_etcd: MakeEtcd, follow: Follow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(publishing, "_AGAIN", 0.3)
    etcd = make_etcd("--quota-backend-bytes", str(3 << 20))
    etcd.start()
    etcd.fill(many(1))
    consumer = begun(etcd, follow)
    with caplog.at_level(logging.INFO, "vethlib.agent"):
        with pytest.raises(AssertionError, match="database space exceeded"):
            for number in range(200):
                etcd.put(f"/filler/{number}", "x" * 100_000)
        consumer.store.publish({"v0": status("v0", "changed")})
        assert poll(lambda: "NOSPACE" in caplog.text)
        etcd.delete(key("v0"))  # which a full one takes
        assert changes(consumer.hear()) == ["-v0"]
        consumer.store.publish({"v1": status("v1", "changed")})
        assert consumer.wait_a_while(1.0) == []
        assert caplog.text.count("NOSPACE") == 1
        etcd.delete_prefix("/filler/")
        etcd.compact()
        etcd.ctl("defrag")
        etcd.ctl("alarm", "disarm")
        comes_to_say(etcd, {"v0": "changed", "v1": "changed"})
        assert "statuses are being written again" in caplog.text


def test_who_is_asked_for_his_name_only_later_gives_it_then(etcd: Etcd, follow: Follow) -> None:
    user, password = ROOT
    masked = password.replace("/", "%2F").replace(":", "%3A").replace("@", "%40")
    consumer = begun(etcd, follow, f"etcd://{user}:{masked}@{etcd.endpoint}{OFTEN}")
    etcd.enable_auth()
    consumer.store.publish({"v0": status("v0", "changed")})
    comes_to_say(etcd, {"v0": "changed", "v1": "waits"})
    assert not any(isinstance(one, Outage) for one in consumer.told)


def test_keys_that_look_alike_are_told_apart_and_take_nothing_along(etcd: Etcd, follow: Follow) -> None:
    consumer = follow(etcd.url)
    consumer.hear()
    odd = key("").encode() + b"\xff/"
    etcd.put(odd.decode(errors="surrogateescape"), "1")
    etcd.put(key("\\xff/"), "2")
    etcd.put(key("veth1"), text("veth1"))
    consumer.wait(lambda: len(consumer.values or ()) == 3)
    assert etcd.delete_prefix(key("")) == 3
    consumer.wait(lambda: consumer.values == {})
