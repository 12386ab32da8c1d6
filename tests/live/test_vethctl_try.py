"""apply --try: a trial is undone exactly, unless it is confirmed."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.commands import Said, Vethctl, unasked_runner
from tests.live.applying import EXAMPLES, value
from tests.live.children import staying
from tests.live.other_user import OTHER, become_other
from tests.live.sysctls import sysctl
from tests.programs import attended
from tests.witness import host_state, ip, names, poll, seen, settled_routes
from vethlib import NetlinkError, ns
from vethlib.agent.host.observation import observe
from vethlib.agent.run.trial import NoTrial, settle
from vethlib.cli.applying.question import Answer, ask

pytestmark = pytest.mark.slow

PAIR = str(EXAMPLES / "pair")
LABEL = "vpp1"
PATIENCE = 60  # seconds; on a busy machine, a command needs some of them to start
Write = Callable[..., str]


@pytest.fixture
def vethctl(home: ns.Netns, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Vethctl]:
    yield unasked_runner(capsys, monkeypatch)
    monkeypatch.undo()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(*values: dict[str, Any]) -> str:
        path = tmp_path / "interfaces.json"
        path.write_text(json.dumps(values))
        return str(path)

    return write


class Terminal:
    """vethctl on its own terminal, of which the test is the other side."""

    opened: ClassVar[list[Terminal]] = []

    def __init__(self, *argv: str, stdout: int | None = None, columns: int = 80) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
        self.said = ""

        def take_terminal() -> None:
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        command = [sys.executable, "-m", "vethlib", *argv]
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave if stdout is None else stdout,
            stderr=slave,
            start_new_session=True,
            preexec_fn=take_terminal,
            env=os.environ | {"NO_COLOR": "1"},
        )
        os.close(slave)
        self.opened.append(self)

    def until(self, text: str) -> Terminal:
        deadline = time.monotonic() + PATIENCE
        while text not in self.said:
            ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
            assert ready, self.said
            self.said += self._read()
        return self

    def _read(self) -> str:
        try:
            return os.read(self.master, 4096).decode()
        except OSError:  # EIO: nobody has the other side any more
            return ""

    def press(self, keys: str) -> Terminal:
        os.write(self.master, keys.encode())
        return self

    def end(self) -> int:
        while text := self._read():
            self.said += text
        os.close(self.master)
        return self.process.wait(PATIENCE)

    def hang_up(self) -> int:
        os.close(self.master)
        return self.process.wait(PATIENCE)


@pytest.fixture(autouse=True)
def _no_terminal_outlives_its_test() -> Iterator[None]:
    yield
    for terminal in Terminal.opened:
        if terminal.process.poll() is None:
            terminal.process.kill()
            terminal.end()
    Terminal.opened.clear()


def ends(**fields: Any) -> list[dict[str, Any]]:
    one = value("one", "two", "ns1", mtu=1400, ip_addresses=["10.0.0.1/24", "10.0.0.2/24", "2001:db8::1/64"])
    return [one | fields, value("two", "one", "ns2")]


@pytest.fixture
def during(vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """A trial during which something is done before it is confirmed or ended."""

    def run(meddle: Callable[[], None], word: str, *argv: str) -> Said:
        asked = threading.Event()
        failed: list[BaseException] = []

        def asking(*args: Any) -> Answer:
            asked.set()
            return ask(*args)

        def elsewhere() -> None:
            try:
                assert asked.wait(PATIENCE)
                meddle()
                settle(LABEL, word)
            except BaseException as error:
                failed.append(error)

        monkeypatch.setattr("vethlib.cli.applying.trial.ask", asking)
        thread = threading.Thread(target=elsewhere)
        thread.start()
        said = vethctl("apply", *argv, "--try", "60s")
        thread.join()
        assert failed == []
        return said

    return run


def other_ends() -> list[dict[str, Any]]:
    return ends(mtu=1300, ip_addresses=["10.0.0.2/24", "10.0.1.1/24"], host_if_name="eth0", enabled=False)


def without_indexes(state: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    volatile = ("ifindex", "link_index", "link_netnsid")
    return {
        netns: [{key: one for key, one in link.items() if key not in volatile} for link in links]
        for netns, links in state.items()
    }


@pytest.mark.parametrize("key", ["y", "n"])
def test_the_terminal_is_asked_and_a_key_decides(home: ns.Netns, write: Write, key: str) -> None:
    before = host_state()
    pair = write(*ends(ip_addresses=["10.0.0.1/24"]))  # of which nothing is tentative
    terminal = Terminal("apply", pair, "--try", "55s").until("keep these changes? y or n, 55 s left")
    assert names("ns1") == {"one"}
    code = terminal.press("x").press(key).end()  # x is no answer
    if key == "y":
        assert code == 0
        assert "kept: " in terminal.said
        assert names("ns1") == {"one"}
    else:
        assert code == 4
        assert "undone: " in terminal.said
        assert host_state() == before


@pytest.mark.parametrize("columns", [12, 30])
def test_the_question_is_never_wider_than_the_terminal(home: ns.Netns, write: Write, columns: int) -> None:
    terminal = Terminal("apply", write(*ends()), "--try", "60s", columns=columns).until("\033[Kkeep thes")
    code = terminal.press("n").end()
    _, *questions = terminal.said.partition("elsewhere")[2].split("\r\033[Kkeep")
    assert questions
    assert all(len("keep" + question.partition("\r")[0]) < columns for question in questions)
    assert code == 4


@pytest.mark.parametrize("long", ["600h", "1e300"])
@pytest.mark.parametrize("word", ["keep", "undo"])
def test_a_trial_may_be_longer_than_a_system_call_waits(home: ns.Netns, write: Write, long: str, word: str) -> None:
    command = [sys.executable, "-m", "vethlib", "apply", write(*ends()), "--try", long]
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with attended(
        subprocess.Popen(command, stdin=null, stdout=null, stderr=pipe, text=True, start_new_session=True)
    ) as trial:
        assert settle(LABEL, word, timeout=PATIENCE) == {"keep": "kept", "undo": "undone"}[word]
        _, errors = trial.communicate()
    assert "unexpected" not in errors
    assert trial.returncode == {"keep": 0, "undo": 4}[word]


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGHUP", "ctrl-c", "hang up", "no answer", "no reader"])
def test_every_way_of_leaving_takes_it_back_to_the_letter(vethctl: Vethctl, write: Write, how: str) -> None:
    vethctl("apply", write(*ends()))
    before = host_state()
    path = write(*other_ends())
    if how == "no reader":
        reader, writer = os.pipe()
        os.close(reader)
        code = Terminal("apply", path, "--try", "30s", stdout=writer).end()
        os.close(writer)
    else:
        terminal = Terminal("apply", path, "--try", "300ms" if how == "no answer" else "1m").until(
            "keep these changes?"
        )
        if how != "no answer":  # its time may be over by now
            assert names("ns1") == {"eth0"}
        if how.startswith("SIG"):
            terminal.process.send_signal(getattr(signal, how))
        elif how == "ctrl-c":
            terminal.press("\x03")
        code = terminal.hang_up() if how == "hang up" else terminal.end()
    assert code == 4
    assert host_state() == before


def test_a_pair_that_was_deleted_comes_back_as_it_was_but_for_its_indexes(vethctl: Vethctl, write: Write) -> None:
    vethctl("apply", write(*ends(num_queues=2, enabled=False)))
    before = host_state()
    said = vethctl("apply", write(), "--prune", "--try", "50ms")
    assert (said.code, said.out.splitlines()[-1].partition(":")[0]) == (4, "undone")
    after = host_state()
    assert without_indexes(after) == without_indexes(before)
    assert after != before


PLACES = {"home": ("", ""), "a tenant": ("ns1", "ns2"), "both": ("", "ns2")}


@pytest.mark.parametrize("tried", PLACES)
@pytest.mark.parametrize("former", PLACES)
def test_a_pair_that_is_tried_elsewhere_goes_back_to_where_it_was(
    vethctl: Vethctl, write: Write, former: str, tried: str
) -> None:
    def pair(netns: tuple[str, str]) -> str:
        return write(value("one", "two", netns[0]), value("two", "one", netns[1]))

    vethctl("apply", pair(PLACES[former]))
    before = host_state()
    assert vethctl("apply", pair(PLACES[tried]), "--try", "50ms").code == (0 if tried == former else 4)
    assert without_indexes(host_state()) == without_indexes(before)


@pytest.mark.parametrize("netns", ["", "ns1"])
def test_routes_of_a_deleted_pair_come_back_with_it(vethctl: Vethctl, write: Write, netns: str) -> None:
    fields = {"ip_addresses": ["10.0.0.1/24"], "routes": [{"dst": "10.9.0.0/24"}]}
    vethctl("apply", write(value("one", "two", netns, **fields), value("two", "one", netns)))
    ours = ("route", "show", "proto", "118")
    before = settled_routes(*ours, netns=netns)
    assert [route["dst"] for route in before] == ["10.9.0.0/24"]
    assert vethctl("apply", write(), "--prune", "--try", "50ms").code == 4
    assert settled_routes(*ours, netns=netns) == before


@pytest.mark.parametrize("failures", [1, 2])
def test_a_look_that_fails_for_a_moment_does_not_keep_a_trial_from_being_undone(
    vethctl: Vethctl, write: Write, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    before = host_state()
    looks = 0

    def failing(*args: Any, **more: Any) -> Any:
        nonlocal looks
        looks += 1
        if 1 < looks <= 1 + failures:  # the first is the look after the execution
            raise NetlinkError("cannot list the links", errno=errno.ENOBUFS)
        return observe(*args, **more)

    monkeypatch.setattr("vethlib.cli.applying.trial.observe", failing)
    assert vethctl("apply", write(*ends()), "--try", "50ms").code == 4
    assert looks == 2 + failures
    assert host_state() == before


def test_a_pair_that_is_not_found_any_more_is_reported(
    during: Callable[..., Said], write: Write, home: ns.Netns
) -> None:
    def meddle() -> None:
        ip("link", "delete", "one")

    said = during(meddle, "undo", write(value("one", "two"), value("two", "one")))
    assert said.code == 4
    assert "'one'" in said.err


def test_a_pair_whose_link_has_flags_of_another_program_is_not_rebuilt_on_trial(vethctl: Vethctl, write: Write) -> None:
    vethctl("apply", write(*ends()))
    ip("link", "set", "one", "promisc", "on", "multicast", "off", netns="ns1")
    said = vethctl("apply", write(*ends(num_queues=3)), "--try", "10s", "--json")
    assert (said.code, said.out, said.errors[-1]["code"]) == (2, "", "irreversible")
    assert "its setting 'promisc on' and its setting 'multicast off'" in said.errors[-1]["error"]
    flags = seen("one", "ns1")["flags"]
    assert "PROMISC" in flags
    assert "MULTICAST" not in flags
    assert vethctl("apply", write(*ends(mtu=1450)), "--try", "10ms").code == 4  # which costs it none of them
    assert seen("one", "ns1")["flags"] == flags


def test_an_mtu_that_would_cost_a_link_its_ipv6_token_is_refused(vethctl: Vethctl, write: Write) -> None:
    given = [value("one", "two", "ns1"), value("two", "one")]
    vethctl("apply", write(*given))
    ip("token", "set", "::1:2:3:4", "dev", "one", netns="ns1")
    said = vethctl("apply", write(given[0] | {"mtu": 1200}, given[1]), "--try", "10s", "--json")
    assert (said.code, said.out, said.errors[-1]["code"]) == (2, "", "irreversible")
    assert "an MTU below 1280 loses its IPv6 token ::1:2:3:4" in said.errors[-1]["error"]
    assert [each["token"] for each in ip("token", "show", "dev", "one", netns="ns1")] == ["::1:2:3:4"]


def test_a_pair_that_has_to_be_rebuilt_can_be_tried(vethctl: Vethctl, write: Write) -> None:
    vethctl("apply", write(*ends(num_queues=2)))
    before = host_state()
    assert vethctl("apply", write(*ends(num_queues=3, mtu=1500)), "--try", "50ms").code == 4
    assert without_indexes(host_state()) == without_indexes(before)
    assert vethctl("diff", write(*ends(num_queues=2))).code == 0


@pytest.mark.parametrize("before", [True, False])
def test_ipv6_that_was_tried_on_or_off_comes_back(vethctl: Vethctl, write: Write, before: bool) -> None:
    given = {"ip_addresses": ["10.0.0.1/24"]}
    vethctl("apply", write(value("one", "two", "ns1", ipv6=before, **given), value("two", "one")))
    if before:
        ip("address", "add", "fd00::9/64", "dev", "one", "nodad", netns="ns1")
    state = host_state()
    tried = write(value("one", "two", "ns1", ipv6=not before, **given), value("two", "one"))
    done = vethctl("apply", tried, "--try", "50ms")
    assert done.code == 4
    assert f"ipv6 {'on' if before else 'off'} → {'off' if before else 'on'}" in done.out
    assert host_state() == state
    assert vethctl("show", "one@ns1", "--json").json[0]["ipv6"] == before


def test_label_lifetimes_and_order_of_addresses_come_back(vethctl: Vethctl, write: Write) -> None:
    vethctl("apply", write(*ends()))
    ip("address", "add", "10.9.0.1/24", "dev", "one", "label", "one:x", "broadcast", "+", netns="ns1")
    ip("address", "add", "10.0.0.9/24", "dev", "one", "metric", "77", netns="ns1")
    before = host_state()
    assert vethctl("apply", write(*other_ends()), "--try", "50ms").code == 4
    assert host_state() == before


ATTRIBUTES = ["10.0.0.1/24 brd + label one:x", "10.1.0.1 peer 10.1.0.2/32", "2001:db8::1/64 nodad noprefixroute"]


@pytest.mark.parametrize("tried", [["10.0.0.1/24", "2001:db8::1/64"], ["10.0.0.1/24 label one:y"], None])
def test_addresses_come_back_with_their_attributes(vethctl: Vethctl, write: Write, tried: list[str] | None) -> None:
    def with_addresses(*given: str) -> tuple[dict[str, Any], ...]:
        return value("one", "two", "ns1", ip_addresses=list(given)), value("two", "one", ipv6=False)

    vethctl("apply", write(*with_addresses(*ATTRIBUTES)))
    before = seen("one", "ns1")["addr_info"]
    desired = () if tried is None else with_addresses(*tried)
    assert vethctl("apply", write(*desired), "--prune", "--try", "50ms").code == 4
    now = seen("one", "ns1")["addr_info"]
    assert [one for one in now if one["scope"] != "link"] == [one for one in before if one["scope"] != "link"]
    assert {one["label"] for one in now if one["family"] == "inet"} == {"one:x", "one"}


def test_an_ipv4_address_with_a_label_switches_no_ipv6_on(vethctl: Vethctl, write: Write) -> None:
    pair = write(value("one", "two", "ns1"), value("two", "one"))
    vethctl("apply", pair)
    sysctl("ns1", "ipv6/conf/one/disable_ipv6", "1")
    labelled = write(value("one", "two", "ns1", ip_addresses=["10.0.0.1/24 label one:x"]), value("two", "one"))
    assert vethctl("apply", labelled, "--try", "50ms").code == 4


BURDENS = {
    "route": ["route", "add", "10.7.0.0/16", "via", "10.0.0.77"],
    "permanent neighbour": ["neighbour", "add", "10.0.0.7", "lladdr", "02:00:00:00:00:07", "dev", "one"],
    "10.0.5.1/24": ["address", "add", "10.0.5.1/24", "dev", "one"],
    "'mv' on top of it": ["link", "add", "link", "one", "name", "mv", "type", "macvlan"],
    "its setting 'arp off'": ["link", "set", "one", "arp", "off"],
    "its setting 'gso_max_segs 100'": ["link", "set", "one", "gso_max_segs", "100"],
    "its IPv6 token ::1:2:3:4": ["token", "set", "::1:2:3:4", "dev", "one"],
    "expires": ["address", "change", "2001:db8::1/64", "dev", "one", "valid_lft", "99", "preferred_lft", "99"],
}


@pytest.mark.parametrize("burden", BURDENS)
def test_a_deletion_that_would_lose_what_others_put_on_a_link_is_refused(
    vethctl: Vethctl, write: Write, burden: str
) -> None:
    vethctl("apply", write(*ends()))
    ip(*BURDENS[burden], netns="ns1")
    before = host_state()
    said = vethctl("apply", write(), "--prune", "--try", "10s", "--json")
    assert (said.code, said.out) == (2, "")
    refusal = said.errors[-1]
    assert refusal["code"] == "irreversible"
    assert ("2001:db8::1/64" if burden == "expires" else burden) in refusal["error"]
    assert host_state() == before
    assert vethctl("apply", write(), "--prune", "--try", "10s", "--dry-run").code == 2


def test_alternative_names_of_a_deleted_pair_come_back_with_it(vethctl: Vethctl, write: Write) -> None:
    vethctl("apply", write(*ends()))
    ip("link", "property", "add", "dev", "one", "altname", "long", netns="ns1")
    assert vethctl("apply", write(), "--prune", "--try", "50ms").code == 4
    assert seen("one", "ns1")["altnames"] == ["long"]


@pytest.mark.parametrize("burden", ["route", "permanent neighbour", "'mv' on top of it", "expires"])
def test_a_change_that_would_lose_what_others_put_on_a_link_is_refused(
    vethctl: Vethctl, write: Write, burden: str
) -> None:
    vethctl("apply", write(*ends()))
    ip(*BURDENS[burden], netns="ns1")
    before = host_state()
    said = vethctl("apply", write(*ends(enabled=False)), "--try", "10s")
    assert (said.code, said.out) == (2, "")
    assert burden in said.err
    assert host_state() == before
    if burden != "'mv' on top of it":  # what a change does not take may stay
        assert vethctl("apply", write(*ends(mtu=1450)), "--try", "10ms").code == 4
        assert host_state() == before


def test_what_others_change_meanwhile_stays_and_is_told(
    vethctl: Vethctl, during: Callable[..., Said], write: Write
) -> None:
    vethctl("apply", write(*ends()))

    def meddle() -> None:
        ip("link", "set", "one", "mtu", "1350", netns="ns1")
        ip("address", "add", "10.0.7.1/24", "dev", "one", netns="ns1")

    path = write(*ends(mtu=1300, ip_addresses=["10.0.0.3/24"]))
    said = during(meddle, "undo", path)
    assert said.code == 4
    assert "mtu stays 1350" in said.err
    link = seen("one", "ns1")
    assert link["mtu"] == 1350
    there = [one["local"] for one in link["addr_info"] if not one["local"].startswith("fe80")]
    assert there == ["10.0.0.1", "10.0.7.1", "10.0.0.2", "2001:db8::1"]


def test_a_namespace_that_somebody_uses_meanwhile_stays_and_is_told(
    during: Callable[..., Said], write: Write, spawn: Callable[[str], int]
) -> None:
    def meddle() -> None:
        spawn("ns1")
        ip("link", "add", "name", "theirs", "type", "bridge", netns="ns2")

    said = during(meddle, "undo", write(*ends()))
    assert said.code == 4
    assert "'theirs'" in said.err
    assert "netns:ns1" in said.err
    assert (names("ns1"), names("ns2")) == (set(), {"theirs"})


def test_another_process_keeps_or_undoes_it(during: Callable[..., Said], write: Write) -> None:
    path = write(*ends())
    undone = during(lambda: None, "undo", path, "--json")
    assert (undone.code, undone.json["outcome"], ns.names()) == (4, "undone", [])
    assert during(lambda: None, "keep", path, "--json").json["outcome"] == "kept"
    assert names("ns1") == {"one"}


def test_confirm_says_what_became_of_the_trial(vethctl: Vethctl, write: Write) -> None:
    trial = subprocess.Popen(
        [sys.executable, "-m", "vethlib", "apply", write(*ends()), "--try", "60s", "--json"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    said = vethctl("confirm", "--timeout", "60s")
    assert (said.code, said.out.partition(":")[0]) == (0, "kept")
    out, _ = trial.communicate(timeout=PATIENCE)
    told = json.loads(out)
    assert (trial.returncode, told["outcome"], told["code"], told["undone"], told["left"]) == (0, "kept", "", [], [])
    assert told["reason"] == ""
    assert [one["op"] for one in told["done"]] == ["add-netns", "add-netns", "create", "create"]
    late = vethctl("confirm", "--json")
    assert (late.code, late.error["code"]) == (2, "no-trial")


@pytest.mark.parametrize("up", [False, True])
def test_a_tunnel_that_the_kernel_creates_everywhere_keeps_a_namespace_only_if_it_is_used(
    during: Callable[..., Said], write: Write, up: bool
) -> None:
    def begin() -> None:
        for tunnel in ("tunl0", "ip6tnl0"):
            ip("link", "add", "name", tunnel, *(["up"] if up else []), "type", "bridge", netns="ns1")

    during(begin, "undo", write(*ends()))
    assert ns.names() == (["ns1"] if up else [])


def test_there_is_one_trial_of_a_label_at_a_time(during: Callable[..., Said], write: Write) -> None:
    path = write(*ends())
    said: list[int] = []

    def meddle() -> None:
        done = subprocess.run(
            [sys.executable, "-m", "vethlib", "apply", path, "--try", "1s", "--json"],
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
        )
        said.append(done.returncode)
        assert json.loads(done.stderr.splitlines()[-1])["code"] == "already-trying"

    assert during(meddle, "undo", path).code == 4
    assert said == [2]


def test_the_json_of_a_trial_that_was_undone_has_both_ways(vethctl: Vethctl, write: Write) -> None:
    told = vethctl("apply", write(*ends()), "--try", "10ms", "--json").json
    assert (told["outcome"], told["code"], bool(told["reason"])) == ("undone", "not-confirmed", True)
    assert [one["op"] for one in told["undone"]] == ["delete", "remove-netns", "remove-netns"]


def test_nothing_is_asked_where_nothing_changes(vethctl: Vethctl, write: Write) -> None:
    one, two = ends(ip_addresses=["10.0.0.1/24"])  # of which nothing is tentative
    pair = one, two | {"mtu": one["mtu"]}
    vethctl("apply", write(*pair))
    said = vethctl("apply", write(*pair), "--try", "1h")
    assert (said.code, len(said.out.splitlines()), said.err) == (0, 1, "")


def test_without_a_trial_there_is_nobody_to_confirm_it_to(home: ns.Netns) -> None:
    with pytest.raises(NoTrial, match=LABEL):
        settle(LABEL, "keep")


def test_a_connection_without_a_terminal_that_is_lost_takes_it_back(home: ns.Netns) -> None:
    before = host_state()
    trial = subprocess.Popen(
        [sys.executable, "-m", "vethlib", "apply", PAIR, "--try", "1m"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert trial.stdout is not None
    assert trial.stderr is not None
    assert trial.stderr.readline().startswith("applied on trial ")
    assert names("ns1") == {"veth1"}
    trial.stdout.close()
    assert trial.wait(PATIENCE) == 4
    trial.stderr.close()
    assert host_state() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="somebody else is needed")
def test_whoever_else_holds_the_name_of_a_trial_is_not_believed(home: ns.Netns) -> None:
    def squat() -> object:
        become_other()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listening.bind("\0vethlib/try/vpp1")
        listening.listen()
        return listening

    with staying(squat), pytest.raises(NoTrial, match=f" {OTHER}"):
        settle("vpp1", "keep")


def full_pipe() -> tuple[int, int]:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.write(write, b"\n" * 4096)
    return read, write


def stopped_terminal() -> tuple[int, int]:
    ours, theirs = pty.openpty()
    termios.tcflow(theirs, termios.TCOOFF)  # as Ctrl-S does
    return ours, theirs


@pytest.mark.parametrize("stalled", [full_pipe, stopped_terminal])
def test_a_trial_whose_output_is_not_read_ends_in_time(home: ns.Netns, stalled: Callable[[], tuple[int, int]]) -> None:
    before = host_state()
    read, write = stalled()
    trial = subprocess.Popen(
        [sys.executable, "-m", "vethlib", "apply", PAIR, "--try", "2s"],
        stdin=subprocess.DEVNULL,
        stdout=write,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert trial.wait(PATIENCE) == 4
    assert host_state() == before
    os.close(read)
    os.close(write)


def _is_again(before: object) -> bool:
    """Whether the host is as it was before.

    A look into a namespace uses it, so that it could not be removed: only its name is looked for until it is gone.
    """
    try:
        return not ns.names() and host_state() == before
    except RuntimeError:
        return False


def test_a_signal_that_whoever_starts_it_has_ignored_ends_no_trial(home: ns.Netns, write: Write) -> None:
    """As under nohup."""
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        terminal = Terminal("apply", write(*ends()), "--try", "1m").until("keep these changes?")
    finally:
        signal.signal(signal.SIGHUP, usual)
    terminal.process.send_signal(signal.SIGHUP)
    assert not poll(lambda: terminal.process.poll() is not None, 0.5)
    terminal.press("y\n")
    assert terminal.end() == 0
    assert names("ns1") == {"one"}


def test_a_terminal_that_is_stopped_while_the_question_is_open_does_not_keep_it_open(home: ns.Netns) -> None:
    before = host_state()
    terminal = Terminal("apply", PAIR, "--try", "3s")
    terminal.until("keep these changes?")
    terminal.press("\x13")  # Ctrl-S
    assert poll(lambda: _is_again(before), PATIENCE)
    terminal.press("\x11")
    assert terminal.end() == 4
