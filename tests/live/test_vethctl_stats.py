"""vethctl stats: counters and rates, compared with ip."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import Vethctl, runner
from tests.programs import attended, freeze
from tests.witness import ip, names, seen
from vethlib import End, Netns, Session, Veth, ns

ROOT = Path(__file__).parents[2]


@pytest.fixture
def vethctl(
    session: Session, blue: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Vethctl]:
    for where in ("", blue):
        with ns.entered(where):
            # Or IPv6 would say something now and then.
            Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
    session.create(Veth(End("a", addresses=["10.0.0.1/24"]), End("b", blue, addresses=["10.0.0.2/24"])), wait=30)
    yield runner(capsys, monkeypatch)
    monkeypatch.undo()


def ping(count: int) -> None:
    command = ["ping", "-q", "-c", str(count), "-i", "0.01", "-s", "972", "10.0.0.2"]
    subprocess.run(command, check=True, capture_output=True)


def test_one_link_is_an_object_with_the_counters_of_ip(vethctl: Vethctl) -> None:
    ping(3)
    said, told = vethctl("stats", "b@blue", "--json").json, seen("b", "blue")["stats64"]
    assert list(said)[:4] == ["netns", "name", "rx_packets", "tx_packets"]
    assert (said["netns"], said["name"]) == ("netns:blue", "b")
    assert "rates" not in said
    assert [said["rx_bytes"], said["tx_packets"]] == [told["rx"]["bytes"], told["tx"]["packets"]]


def test_several_links_are_a_list_and_a_table_with_a_total(vethctl: Vethctl) -> None:
    ping(1)
    said = vethctl("stats", "a", "b@blue", "--json").json
    assert [(one["netns"], one["name"]) for one in said] == [("", "a"), ("netns:blue", "b")]
    lines = vethctl("stats").out.splitlines()
    assert [line.split()[0] for line in lines] == ["rx-packets", "a", "b@blue", "total"]
    assert int(lines[3].split()[2]) == sum(one["rx_bytes"] for one in said)


def test_the_other_end_is_shown_where_asked_for(vethctl: Vethctl) -> None:
    said = vethctl("stats", "b@blue", "--peer", "--json").json
    assert [(one["netns"], one["name"]) for one in said] == [("netns:blue", "b"), ("", "a")]


@pytest.mark.parametrize(
    "flags", [["--interval", "0.1"], ["--watch", "--count", "2", "--interval", "0.1"]], ids=" ".join
)
def test_a_pair_that_vanishes_between_two_samples_is_left_out_and_a_new_one_is_shown(
    vethctl: Vethctl, session: Session, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    session.create(Veth(End("p1", "blue"), End("p2")))

    def replace(_seconds: float) -> None:
        if "p1" in names("blue"):
            session.delete("p1", "blue")
            session.create(Veth(End("new1", "blue"), End("new2")))

    monkeypatch.setattr(time, "sleep", replace)
    said = vethctl("stats", "@blue", "--peer", *flags, "--json")
    assert said.code == 0
    lines = [json.loads(line) for line in said.out.splitlines()] if "--watch" in flags else said.json
    shown = [(line["netns"], line["name"]) for line in lines if line["index"] is not None]
    assert set(shown) == {("netns:blue", "lo"), ("netns:blue", "b"), ("", "a"), ("netns:blue", "new1"), ("", "new2")}
    assert [name for _, name in shown[-5:]].index("new2") == [name for _, name in shown[-5:]].index("new1") + 1


def test_a_link_given_by_name_that_vanishes_between_two_samples_is_an_error(
    vethctl: Vethctl, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: session.delete("a"))
    said = vethctl("stats", "b@blue", "--peer", "--interval", "0.1", "--json")
    assert (said.code, said.error["code"]) == (2, "link-not-found")
    assert vethctl("stats", "b@blue", "--peer").code == 2


def test_a_watch_of_a_namespace_that_ends_goes_on(
    vethctl: Vethctl, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: ns.remove("blue") if "blue" in ns.names() else None)
    said = vethctl("stats", "a", "@blue", "--peer", "--watch", "--count", "2", "--interval", "0.1", "--json")
    assert said.code == 0
    gone = [json.loads(line) for line in said.out.splitlines()]
    assert ("netns:blue", "b", None) in [(line["netns"], line["name"], line["index"]) for line in gone]


def test_a_namespace_stands_for_all_its_links(vethctl: Vethctl) -> None:
    assert [one["name"] for one in vethctl("stats", "@blue", "--json").json] == ["lo", "b"]


def test_rates_are_what_went_through_in_the_interval(vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch) -> None:
    ping(1)  # with it, the neighbours know each other
    sleep = time.sleep

    def ping_and_sleep(seconds: float) -> None:
        ping(20)
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", ping_and_sleep)
    began = time.monotonic()
    (said,) = (vethctl("stats", "b@blue", "--interval", "1", "--json").json,)
    assert 1.0 <= said["interval"] < time.monotonic() - began
    assert said["rates"]["rx_packets"] * said["interval"] == pytest.approx(20, abs=1)
    assert said["rates"]["rx_bytes"] * said["interval"] == pytest.approx(20 * 1014, abs=1014)


def test_watching_tells_each_interval_as_a_line_a_link_and_what_comes_and_goes(
    vethctl: Vethctl, session: Session
) -> None:
    command = [sys.executable, "-m", "vethlib", "stats", "--watch", "--interval", "0.2", "--count", "8", "--json"]
    with attended(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        freeze(process.pid)  # it never looks while there is no link of that name
        session.delete("a")
        session.create(Veth(End("a"), End("c", "blue")))
        process.send_signal(signal.SIGCONT)
        lines = [first, *map(json.loads, process.stdout)]
    assert process.returncode == 0
    assert (first["name"], first["rates"]["rx_bytes"] >= 0) == ("a", True)
    of_a = [line for line in lines if line["name"] == "a"]
    assert len(of_a) == 8
    # Made again, it is another link: it has no rate at first.
    again = [line for line in of_a if line["index"] != first["index"]]
    assert [line["rates"] is None for line in again] == [True] + [False] * (len(again) - 1)
    gone = [line for line in lines if line["name"] == "b" and line["index"] is None]
    assert [(line["netns"], line["rates"]) for line in gone] == [("netns:blue", None)]
    assert {line["name"] for line in lines} == {"a", "b", "c"}


def test_what_cannot_be_shown_is_an_error_that_says_why(vethctl: Vethctl) -> None:
    said = vethctl("stats", "a", "nope@blue", "--json")
    assert (said.code, said.error["code"]) == (2, "link-not-found")
    assert vethctl("stats", "@nowhere", "--json").error["code"] == "netns-not-found"
    for flags, field in ((["--interval", "0"], "--interval"), (["--watch", "--count", "0"], "--count")):
        said = vethctl("stats", "a", *flags, "--json")
        assert (said.code, said.error["field"]) == (1, field)
    assert vethctl("stats", "a", "--count", "3").code == 1


def test_top_prints_the_busiest_link_first_where_there_is_no_terminal(vethctl: Vethctl) -> None:
    command = ["ping", "-q", "-i", "0.01", "-s", "972", "10.0.0.2"]
    with attended(subprocess.Popen(command, stdout=subprocess.DEVNULL)) as pinging:
        try:
            everywhere = vethctl("top", "--once", "--interval", "0.5", "--json").json
        finally:
            pinging.terminate()
    # Without the links of other processes of this machine.
    said = [one for one in everywhere if one["netns"] in ("", "netns:blue")]
    assert {(one["netns"], one["name"]) for one in said[:2]} == {("", "a"), ("netns:blue", "b")}
    assert said[0]["rates"]["rx_bytes"] > 0
    assert [one["name"] for one in said if one["netns"] == "netns:blue"] == ["b", "lo"]
    lines = vethctl("top", "-n", "2", "--interval", "0.1", "--filter", "@blue").out.splitlines()
    assert [line.split()[0] for line in lines if "blue" in line] == ["b@blue", "lo@blue"] * 2


def test_top_finds_namespaces_without_a_name_by_their_processes(vethctl: Vethctl) -> None:
    with attended(subprocess.Popen(["unshare", "-n", "sleep", "30"])) as process:
        try:
            deadline = time.monotonic() + 30
            while f"pid:{process.pid}" not in ns.everywhere() and time.monotonic() < deadline:
                time.sleep(0.01)
            said = vethctl("top", "--once", "--interval", "0.1", "--filter", f"pid:{process.pid}", "--json").json
            assert [(one["netns"], one["name"]) for one in said] == [(f"pid:{process.pid}", "lo")]
        finally:
            process.kill()
    assert len(ip("link")) == 2


def test_a_link_that_is_given_twice_has_the_name_that_was_given_first(vethctl: Vethctl) -> None:
    ip("link", "property", "add", "dev", "a", "altname", "other")
    for given in (["a", "other"], ["other", "a"]):
        assert [one["name"] for one in vethctl("stats", *given, "--json").json] == given[:1]


def test_a_peer_that_cannot_be_shown_is_reported(vethctl: Vethctl, session: Session) -> None:
    with Netns.anonymous() as other:
        session.create(Veth(End("near"), End("far", other)))
        said = vethctl("stats", "near", "a", "--peer", "--json")
        assert [one["name"] for one in said.json] == ["near", "a", "b"]
        assert (said.code, said.error["code"]) == (0, "warning")
        assert said.error["error"].startswith("the peer of 'near' is not shown: it is index ")
        assert vethctl("stats", "near", "lo", "--json").err == ""
