"""The metrics of an agent, scraped over HTTP and read by Prometheus' own parser."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.commands import Vethctl, runner
from tests.live.agent_process import Agent
from tests.live.scraping import ask, get, has_ended
from tests.witness import ip, poll
from vethlib import End, LinkExists, Session, Veth
from vethlib._nl.counts import counts
from vethlib.agent import Configurator, Interface, Namespace, NamespaceType
from vethlib.agent.metrics import AgentCollector
from vethlib.agent.metrics.endpoint import Endpoint, parse_address
from vethlib.errors import VethError

pytestmark = pytest.mark.slow


def samples(text: str, parse: Callable[[str], Any] = text_string_to_metric_families) -> dict[tuple[str, ...], float]:
    return {
        (one.name, *(one.labels[key] for key in sorted(one.labels))): one.value
        for family in parse(text)
        for one in family.samples
    }


@pytest.fixture
def port(home: object, tmp_path: Path) -> Iterator[int]:
    """That of an agent that keeps one pair, and lacks the other end of another."""
    ip("link", "set", "lo", "up")
    store = tmp_path / "store"
    store.mkdir()
    for name, peer, netns in (("v1", "v2", ""), ("v2", "v1", "blue"), ("v3", "v4", "")):
        value: dict[str, Any] = {"name": name, "enabled": True, "veth": {"peer_if_name": peer}}
        if netns:
            value["namespace"] = {"type": 2, "name": netns}
        (store / f"{name}.json").write_text(json.dumps(value))
    agent = Agent(tmp_path, "--docker", "off", "--metrics", "127.0.0.1:0", "--metrics-links")
    agent.wait_until("READY")
    yield int(agent.log.partition("metrics: http://127.0.0.1:")[2].partition("/")[0])
    assert agent.end() == 0


def test_a_scrape_has_what_the_agent_has_done(port: int) -> None:
    status, headers, body = get(port, "/metrics")
    assert status == "200 OK"
    assert headers["content-type"].startswith("text/plain")
    found = samples(body)
    assert found["vethlib_interfaces", "CONFIGURED"] == 2
    assert found["vethlib_interfaces", "PENDING"] == 1
    assert found["vethlib_operations_done_total", "create"] == 1
    assert found["vethlib_resyncs_total", "start"] == 1
    assert found["vethlib_store_up",] == 1
    assert found["vethlib_reconcile_outcomes_total", "done"] >= 2
    assert found["vethlib_reconcile_duration_seconds_count", "bout"] >= 1
    assert found["vethlib_netlink_requests_total",] > 5
    # One whose operational state has just become known is looked at once more.
    assert poll(lambda: samples(get(port, "/metrics")[2])["vethlib_dirty_interfaces",] == 0)
    assert found["process_open_fds",] > 0


def test_a_scrape_has_the_counters_of_the_links(port: int) -> None:
    found = samples(get(port, "/metrics")[2])
    shown = {link["ifname"]: link["stats64"] for link in ip("link")}
    key = ("v1", "v1", "home")
    assert found["vethlib_link_transmit_packets_total", *key] == pytest.approx(shown["v1"]["tx"]["packets"], abs=10)
    assert ("vethlib_link_receive_bytes_total", "v2", "v2", "netns:blue") in found


def test_what_changes_is_in_the_next_scrape(port: int) -> None:
    before = samples(get(port, "/metrics")[2])
    ip("link", "set", "v1", "down")
    deadline = time.monotonic() + 60
    while (now := samples(get(port, "/metrics")[2])).get(("vethlib_operations_done_total", "change"), 0) == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    outcome = ("vethlib_reconcile_outcomes_total", "done")
    assert now[outcome] > before[outcome]


def test_openmetrics_is_spoken_where_it_is_asked_for(port: int) -> None:
    _, headers, body = get(port, "/metrics", "application/openmetrics-text; version=1.0.0")
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert samples(body, openmetrics)["vethlib_interfaces", "CONFIGURED"] == 2


def test_health_is_told_and_nothing_else(port: int) -> None:
    assert get(port, "/healthz")[::2] == ("200 OK", "ok\n")
    assert get(port, "/")[0] == "404 Not Found"
    assert ask(port, "POST /metrics HTTP/1.1\r\n\r\n")[0] == "405 Method Not Allowed"
    assert ask(port, "HEAD /healthz HTTP/1.1\r\n\r\n")[::2] == ("200 OK", "")


def test_those_who_send_nothing_or_too_much_do_not_keep_others_out(port: int) -> None:
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(70)]
    with socket.create_connection(("127.0.0.1", port)) as chatty:
        chatty.sendall(b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 65536)
        assert chatty.recv(1) == b""
    assert get(port, "/healthz")[0] == "200 OK"
    assert sum(has_ended(one) for one in silent) >= 6
    for one in silent:
        one.close()


def test_refusals_of_the_kernel_are_counted_by_errno(session: Session) -> None:
    ip("link", "add", "v1", "type", "veth", "peer", "name", "v2")
    before = counts.errors.get(17, 0)
    with pytest.raises(LinkExists):
        session.create(Veth(End("v1"), End("v3")))
    assert counts.errors[17] == before + 1


def test_a_configurator_of_ones_own_can_be_collected(session: Session) -> None:
    blue = Namespace(NamespaceType.NAMED_NS, name="blue")
    with Configurator(session, label="mine") as configurator:
        registry = CollectorRegistry()
        registry.register(AgentCollector(configurator))
        configurator.resync([Interface("v1", "v2", namespace=blue), Interface("v2", "v1", namespace=blue)])
        configurator.poll()
        assert registry.get_sample_value("vethlib_interfaces", {"state": "CONFIGURED"}) == 2
        assert registry.get_sample_value("vethlib_watched_namespaces") == 2
        bucket = {"part": "execute", "le": "+Inf"}
        assert registry.get_sample_value("vethlib_reconcile_duration_seconds_bucket", bucket) == 1
        assert registry.get_sample_value("vethlib_store_up") is None


@pytest.mark.parametrize("kind", ["bridge", "veth"])
def test_the_counters_of_a_link_that_has_taken_the_name_are_not_those_of_the_interface(
    session: Session, kind: str
) -> None:
    blue = Namespace(NamespaceType.NAMED_NS, name="blue")
    with Configurator(session, label="mine") as configurator:
        registry = CollectorRegistry()
        registry.register(AgentCollector(configurator, links=True))
        configurator.resync([Interface("v1", "v2", namespace=blue), Interface("v2", "v1", namespace=blue)])
        configurator.poll()
        labels = {"interface": "v1", "netns": "netns:blue", "link": "v1"}
        assert registry.get_sample_value("vethlib_link_receive_bytes_total", labels) == 0
        ip("link", "set", "dev", "v1", "name", "other", netns="blue")
        ip("link", "add", "name", "v1", "type", kind, netns="blue")
        assert registry.get_sample_value("vethlib_link_receive_bytes_total", labels) is None


@pytest.mark.parametrize(
    ("argv", "message", "field"),
    [
        (["--metrics", "9750"], "--metrics '9750': must be HOST:PORT, such as 127.0.0.1:9750", "--metrics"),
        (["--metrics", "x:70000"], "--metrics 'x:70000': must be HOST:PORT", "--metrics"),
        (["--metrics", "127.0.0.1:9750"], "cannot serve metrics at 127.0.0.1:9750: Address already in use", ""),
        (["--metrics", "x.invalid:9750"], "cannot serve metrics at x.invalid:9750: ", ""),
        (["--metrics-links"], "--metrics-links needs --metrics", "--metrics-links"),
    ],
)
def test_an_address_that_cannot_be_served_is_said_at_once(
    home: object,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    argv: list[str],
    message: str,
    field: str,
) -> None:
    vethctl: Vethctl = runner(capsys, monkeypatch)
    where = ["--store", f"dir:{tmp_path}", "--status-dir", str(tmp_path / "status"), "--docker", "off"]
    ip("link", "set", "lo", "up")
    with socket.create_server(("127.0.0.1", 9750)):
        said = vethctl("agent", *where, *argv, "--json", "--once")
    assert said.code in (1, 2)
    assert said.err.splitlines()[-1].startswith('{"error": "' + message)
    assert "Unknown error" not in said.err
    assert json.loads(said.err.splitlines()[-1])["field"] == field


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("link", ["v0", "v-0.1"])
def test_a_link_local_address_is_served_in_its_zone(link: str) -> None:
    for command in (
        ["link", "add", link, "type", "veth", "peer", "v1"],
        ["link", "set", "lo", "up"],
        ["link", "set", link, "up"],
        ["addr", "add", "fe80::9/64", "dev", link, "nodad"],
    ):
        subprocess.run(["ip", *command], check=True)
    endpoint = Endpoint(parse_address(f"[fe80::9%{link}]:0"), CollectorRegistry(), lambda: "")
    with socket.create_connection((f"fe80::9%{link}", endpoint.address.port), timeout=30):
        pass
    with pytest.raises(VethError):
        Endpoint(endpoint.address, CollectorRegistry(), lambda: "")
    endpoint.close()
    with pytest.raises(VethError):
        Endpoint(parse_address("[fe80::9%nowhere]:0"), CollectorRegistry(), lambda: "")
