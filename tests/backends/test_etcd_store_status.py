"""What an agent publishes about itself and its interfaces in etcd exists while it runs, plus at most a lease."""

from __future__ import annotations

import base64
import json
import os
import platform
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.backends.etcd import Etcd
from tests.backends.etcd_consumer import LABEL, Consumer, key, many, text
from tests.backends.etcd_fixtures import Follow
from tests.backends.proxy import Proxy
from tests.backends.statuses import status
from tests.programs import attended, freeze
from tests.stores import nothing
from tests.witness import poll
from vethlib.agent.stores.etcd.published import read_labels
from vethlib.agent.stores.etcd.store import EtcdStore
from vethlib.agent.stores.keys import liveness_key, presence_key, status_key
from vethlib.agent.stores.protocol import Outage
from vethlib.agent.stores.published import Published

ROOT = Path(__file__).parents[2]
ALIVE = liveness_key(LABEL)
_BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
PRESENT = presence_key(LABEL, f"{platform.node()}:{os.stat('/proc/self/ns/net').st_ino}:{_BOOT}")
STATUSES = status_key(LABEL, "")
LEASE = 2  # seconds, the least there can be
GONE = 3 * LEASE  # etcd looks for leases that have ended twice a second, and gives one more time when it starts


def said(etcd: Etcd) -> dict[str, str]:
    """The reason in each status by its name."""
    found = {each.decode(): json.loads(raw) for each, raw in etcd.values(STATUSES).items()}
    for each, entry in found.items():
        assert each == status_key(LABEL, entry["name"])
    return {entry["name"]: entry["reason"] for entry in found.values()}


def comes_to_say(etcd: Etcd, expected: dict[str, str], timeout: float = 2.0) -> None:
    poll(lambda: said(etcd) == expected, timeout)
    assert said(etcd) == expected


def leases(etcd: Etcd) -> dict[str, set[str]]:
    """The keys under each lease."""
    found = {}
    for line in etcd.ctl("lease", "list").splitlines()[1:]:
        of_it = json.loads(etcd.ctl("lease", "timetolive", line, "--keys", "-w", "json"))
        found[line] = {base64.b64decode(one).decode() for one in of_it.get("keys") or ()}
    return found


@pytest.fixture
def consumer(etcd: Etcd, proxy: Proxy, follow: Follow) -> Consumer:
    """One with a short lease who has said something of v0 and v1."""
    etcd.fill(many(2))
    consumer = follow(f"{proxy.url}?lease={LEASE}&heartbeat=0.5")
    consumer.come_to(etcd)
    consumer.store.publish({"v0": status("v0"), "v1": status("v1", "waits")})
    comes_to_say(etcd, {"v0": "", "v1": "waits"})
    return consumer


def test_all_that_is_said_is_under_one_lease_which_is_kept_alive(etcd: Etcd, consumer: Consumer) -> None:
    (lease,) = leases(etcd).items()
    assert lease[1] == {ALIVE, PRESENT, STATUSES + "v0", STATUSES + "v1"}
    nothing(consumer.store, 1.5 * LEASE)
    assert leases(etcd) == dict([lease])
    granted = json.loads(etcd.ctl("lease", "timetolive", lease[0], "-w", "json"))["granted-ttl"]
    assert granted == LEASE


def test_a_status_file_that_could_not_be_written_is_written_when_what_was_in_its_place_is_gone(tmp_path: Path) -> None:
    """Without an etcd, which status files do not need."""
    with closing(EtcdStore("etcd://127.0.0.1:1", LABEL, status_dir=tmp_path)) as store:
        (tmp_path / "v0.json").mkdir()
        store.publish({"v0": status("v0"), "v1": status("v1")})
        assert (tmp_path / "v1.json").is_file()
        (tmp_path / "v0.json").rmdir()
        while (due := store.due()) is not None:
            time.sleep(due)
            store.read()
        assert (tmp_path / "v0.json").is_file()


def test_a_status_is_all_that_is_known_and_the_revision_it_is_of(etcd: Etcd, consumer: Consumer) -> None:
    etcd.put(key("v1"), text("v1", mtu=1400))
    revision = etcd.revision
    consumer.hear()
    consumer.store.publish({"v1": status("v1", "waits for more")})
    comes_to_say(etcd, {"v0": "", "v1": "waits for more"})
    entry = json.loads(etcd.values(STATUSES + "v1")[f"{STATUSES}v1".encode()])
    assert entry == status("v1", "waits for more").as_dict() | {"config_revision": revision}


def test_the_revision_is_told_though_nothing_else_is_new(etcd: Etcd, consumer: Consumer) -> None:
    etcd.put(key("v1"), text("v1", description="nothing that shows"))
    revision = etcd.revision
    consumer.hear()
    consumer.store.publish({})
    assert poll(lambda: _revision(etcd, "v1") == revision)


def _revision(etcd: Etcd, name: str) -> Any:
    return json.loads(etcd.values(STATUSES + name)[f"{STATUSES}{name}".encode()])["config_revision"]


def test_a_status_is_replaced_and_taken_away(etcd: Etcd, consumer: Consumer) -> None:
    consumer.store.publish({"v0": None, "v1": status("v1"), "nobody": None})
    comes_to_say(etcd, {"v1": ""})


def test_the_agent_says_that_it_lives_before_it_knows_anything_of_interfaces(etcd: Etcd, follow: Follow) -> None:
    consumer = follow(etcd.url)
    consumer.come_to(etcd)
    assert poll(lambda: set(etcd.values("/")) == {ALIVE.encode(), PRESENT.encode()})
    entry = json.loads(etcd.values(ALIVE)[ALIVE.encode()])
    assert entry["state"] == 1
    assert abs(entry["start_time"] - time.time()) < 60


def test_closed_it_is_gone_at_once(etcd: Etcd, consumer: Consumer) -> None:
    consumer.store.close()
    assert set(etcd.values("/")) == {key("v0").encode(), key("v1").encode()}
    assert leases(etcd) == {}


def test_closed_out_of_reach_it_is_gone_with_the_lease(etcd: Etcd, proxy: Proxy, consumer: Consumer) -> None:
    proxy.refuse()
    proxy.cut()
    consumer.wait_for_outage()
    consumer.store.close()
    assert poll(lambda: leases(etcd) == {}, GONE)
    assert set(etcd.values("/")) == {key("v0").encode(), key("v1").encode()}


def test_after_an_outage_longer_than_the_lease_all_is_said_again(etcd: Etcd, proxy: Proxy, consumer: Consumer) -> None:
    (before,) = leases(etcd)
    proxy.refuse()
    proxy.cut()
    consumer.wait_for_outage()
    consumer.store.publish({"v1": status("v1", "changed meanwhile")})
    assert poll(lambda: leases(etcd) == {}, GONE)
    assert said(etcd) == {}
    proxy.accept()
    comes_to_say(etcd, {"v0": "", "v1": "changed meanwhile"}, 5.0)
    (after,) = leases(etcd).items()
    assert after[0] != before
    assert after[1] == {ALIVE, PRESENT, STATUSES + "v0", STATUSES + "v1"}


def test_a_lease_that_somebody_ends_is_replaced_without_an_outage(etcd: Etcd, consumer: Consumer) -> None:
    (lease,) = leases(etcd)
    etcd.ctl("lease", "revoke", lease)
    comes_to_say(etcd, {"v0": "", "v1": "waits"}, 5.0)
    assert poll(lambda: ALIVE.encode() in etcd.values("/"))
    assert lease not in leases(etcd)
    assert not any(isinstance(one, Outage) for one in consumer.told)


def test_a_wiped_server_is_told_everything_again(etcd: Etcd, consumer: Consumer) -> None:
    etcd.wipe()
    etcd.start()
    consumer.come_to(etcd)
    comes_to_say(etcd, {"v0": "", "v1": "waits"}, 5.0)
    assert poll(lambda: ALIVE.encode() in etcd.values("/"))
    assert len(leases(etcd)) == 1


def test_a_killed_server_keeps_what_was_said_and_hears_on(etcd: Etcd, consumer: Consumer) -> None:
    (lease,) = leases(etcd).items()
    etcd.kill()
    consumer.wait_for_outage()
    consumer.store.publish({"v1": status("v1", "changed meanwhile")})
    etcd.start()
    comes_to_say(etcd, {"v0": "", "v1": "changed meanwhile"}, 5.0)
    assert leases(etcd) == dict([lease])


def test_what_an_earlier_run_has_said_goes_where_it_is_not_said_again(etcd: Etcd, follow: Follow) -> None:
    for name in ("v0", "former"):
        etcd.put(STATUSES + name, json.dumps(status(name, "of an earlier run").as_dict()))
    etcd.put(f"/vnf-agent/{LABEL}2/linux/status/v1/interface/former", "{}")
    consumer = follow(etcd.url)
    consumer.come_to(etcd)
    nothing(consumer.store, 0.5)
    assert said(etcd) == {"v0": "of an earlier run", "former": "of an earlier run"}  # nothing is known yet
    consumer.store.publish({"v0": status("v0")})
    comes_to_say(etcd, {"v0": ""})
    assert etcd.values(f"/vnf-agent/{LABEL}2/")


NO_AGENT = [
    "[" * 100_000,
    "1" * 5000,
    "null",
    f'{{"host": {"[" * 900}1{"]" * 900}}}',
    json.dumps({"host": "x" * 100_000, "pid": "y" * 100_000}),
]


@pytest.mark.parametrize("key", [presence_key(LABEL, "another"), ALIVE])
def test_whatever_stands_where_agents_say_that_they_live_statuses_are_written(
    etcd: Etcd, follow: Follow, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    etcd.put(key, NO_AGENT[0])
    consumer = follow(etcd.url)
    consumer.come_to(etcd)
    for number, value in enumerate(NO_AGENT):
        etcd.put(key, value)
        consumer.store.publish({"v0": status("v0", f"{number}")})
        comes_to_say(etcd, {"v0": f"{number}"}, 10.0)
    assert not [record for record in caplog.records if record.exc_info]
    assert max((len(record.getMessage()) for record in caplog.records), default=0) < 1000


def test_4000_statuses_are_written_soon_and_in_few_transactions(etcd: Etcd, follow: Follow) -> None:
    consumer = follow(etcd.url)
    consumer.come_to(etcd)
    before = etcd.revision
    consumer.store.publish({f"v{number}": status(f"v{number}") for number in range(4000)})
    assert poll(lambda: len(etcd.values(STATUSES)) == 4000)
    assert etcd.revision - before <= 45


# --- a process that ends without taking leave

_AGENT = """
import sys, time
from tests.backends.statuses import status
from vethlib.agent.stores.etcd.store import EtcdStore
store = EtcdStore(sys.argv[1], sys.argv[2])
store.publish({"v0": status("v0")})
print("up", flush=True)
time.sleep(60)
"""


@pytest.fixture
def process(etcd: Etcd) -> Iterator[subprocess.Popen[str]]:
    """A process that has said something of v0."""
    command = [sys.executable, "-c", _AGENT, f"{etcd.url}?lease={LEASE}&heartbeat=0.5", LABEL]
    with attended(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n"
        comes_to_say(etcd, {"v0": ""})
        yield running
        running.kill()


def test_what_a_killed_process_has_said_is_gone_with_the_lease(etcd: Etcd, process: subprocess.Popen[str]) -> None:
    assert ALIVE.encode() in etcd.values("/")
    process.kill()
    process.wait()
    assert set(etcd.values("/")) == {ALIVE.encode(), PRESENT.encode(), f"{STATUSES}v0".encode()}
    assert poll(lambda: etcd.values("/") == {}, GONE)


def test_a_process_that_hangs_is_taken_for_dead_and_says_all_again_when_it_goes_on(
    etcd: Etcd, process: subprocess.Popen[str]
) -> None:
    freeze(process.pid)
    assert poll(lambda: etcd.values("/") == {}, GONE)
    process.send_signal(signal.SIGCONT)
    comes_to_say(etcd, {"v0": ""}, 5.0)
    assert poll(lambda: ALIVE.encode() in etcd.values("/"))


def test_of_long_keys_of_one_label_no_more_than_names_is_kept_while_all_labels_are_read(etcd: Etcd) -> None:
    etcd.put(ALIVE, '{"pid":7,"host":"h"}')
    long = "x" * 500_000
    for prefix in (key(""), STATUSES):
        etcd.fill({f"{prefix.replace(LABEL, 'other')}{number}{long}": "1" for number in range(8)}, at_once=1)
    tracemalloc.start()
    try:
        told = read_labels(etcd.url)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 6_000_000
    own, other = told[LABEL], told["other"]
    assert isinstance(own, Published)
    assert own.agent is not None
    assert isinstance(other, Published)
    assert len(other.untold) == 8
