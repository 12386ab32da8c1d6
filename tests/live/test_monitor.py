"""The monitor reports changes of this host's namespaces, links and addresses, which are made with `ip`."""

from __future__ import annotations

import itertools
import json
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.capabilities import dropped
from tests.live.configuring import bind, unbind
from tests.live.descriptors import no_descriptor_left
from tests.live.interrupting import Interrupting
from tests.refusing import raises
from tests.witness import ip, seen
from vethlib import Session, ns
from vethlib.agent.config.filecontent import content
from vethlib.agent.stores import published
from vethlib.errors import InvalidValue, NetlinkError, NetnsNotFound, NotPermitted, SessionClosed
from vethlib.follow.turns import Turn
from vethlib.monitor import HostEvent, Monitor
from vethlib.monitor import monitor as monitoring
from vethlib.ns.opening import identity_at


@pytest.fixture
def monitor(session: Session, make_netns: Callable[..., None]) -> Iterator[Monitor]:
    make_netns("blue")
    with Monitor(session) as one:
        yield one


def heard(monitor: Monitor, until: Callable[[HostEvent], bool], seconds: float = 30.0) -> list[HostEvent]:
    """Return all events up to and including the awaited one."""
    deadline = time.monotonic() + seconds
    told: list[HostEvent] = []
    while (left := deadline - time.monotonic()) > 0:
        told += monitor.poll(left)
        if any(map(until, told)):
            return told
    raise AssertionError(f"not told: {told}")


def brief(events: list[HostEvent]) -> list[tuple[str, str, str, str]]:
    return [(one.what, one.action, one.netns, one.name) for one in events]


def test_a_pair_that_comes_and_goes_is_told_with_its_addresses(monitor: Monitor) -> None:
    ip("link", "add", "v1", "type", "veth", "peer", "name", "v2", "netns", "blue")
    ip("addr", "add", "10.7.0.1/24", "dev", "v1")
    told = heard(monitor, lambda one: one.what == "address")
    assert ("link", "new", "", "v1") in brief(told)
    assert ("link", "new", "netns:blue", "v2") in brief(told)
    assert str(told[-1].address.interface) == "10.7.0.1/24"  # type: ignore[union-attr]
    ip("link", "del", "v1")
    told = heard(monitor, lambda one: one.what == "link" and one.action == "deleted" and one.netns == "netns:blue")
    assert ("address", "deleted", "", "v1") in brief(told)


def test_what_changes_is_told_as_it_was_and_as_it_is(monitor: Monitor) -> None:
    ip("link", "add", "v1", "type", "veth", "peer", "name", "v2", "netns", "blue")
    ip("link", "set", "v1", "mtu", "1400")
    told = heard(monitor, lambda one: "mtu" in one.changes)
    assert told[-1].changes["mtu"] == (1500, 1400)
    ip("link", "set", "v1", "name", "w1")
    told = heard(monitor, lambda one: "name" in one.changes)
    assert (told[-1].name, told[-1].changes["name"]) == ("w1", ("v1", "w1"))
    assert told[-1].peer == ("netns:blue", "v2")


def test_the_other_end_is_known_when_a_pair_comes_up(monitor: Monitor) -> None:
    ip("link", "add", "v1", "type", "veth", "peer", "name", "v2", "netns", "blue")
    ip("link", "set", "v1", "up")
    told = heard(monitor, lambda one: one.what == "link" and one.peer is not None)
    assert told[-1].peer in (("netns:blue", "v2"), ("", "v1"))


def test_a_namespace_is_told_when_it_comes_and_when_it_goes(monitor: Monitor) -> None:
    ip("netns", "add", "green")
    told = heard(monitor, lambda one: one.what == "netns")
    assert brief(told)[0] == ("netns", "new", "netns:green", "")
    heard(monitor, lambda one: one.name == "lo") if not any(one.name == "lo" for one in told) else None
    ip("link", "set", "lo", "up", netns="green")
    told = heard(monitor, lambda one: one.what == "address")
    assert {one.netns for one in told} == {"netns:green"}
    ip("netns", "del", "green")
    told = heard(monitor, lambda one: one.what == "netns")
    assert brief(told)[-1] == ("netns", "deleted", "netns:green", "")
    assert "netns:green" not in monitor.netns


def test_a_namespace_that_is_made_anew_under_its_name_is_another_one(monitor: Monitor) -> None:
    for _ in range(5):
        ip("netns", "del", "blue")
        ip("netns", "add", "blue")
        ip("link", "set", "lo", "up", netns="blue")
        told = heard(monitor, lambda one: one.what == "address" and one.netns == "netns:blue")
        assert brief([one for one in told if one.what == "netns"])[-1] == ("netns", "new", "netns:blue", "")
        while monitor.poll(0.05):
            pass


def test_a_second_name_of_a_namespace_may_go_without_the_first(monitor: Monitor) -> None:
    Path("/run/netns/azure").touch()
    os.system("mount --bind /run/netns/blue /run/netns/azure")
    heard(monitor, lambda one: one.what == "netns" and one.netns == "netns:azure")
    ip("netns", "del", "azure")
    heard(monitor, lambda one: one.what == "netns" and one.action == "deleted")
    ip("link", "set", "lo", "up", netns="blue")
    heard(monitor, lambda one: one.name == "lo" and "up" in one.changes)


def test_what_happens_is_told_by_a_name_that_is_still_there(monitor: Monitor) -> None:
    Path("/run/netns/azure").touch()
    os.system("mount --bind /run/netns/blue /run/netns/azure")
    heard(monitor, lambda one: one.what == "netns" and one.netns == "netns:azure")
    ip("netns", "del", "blue")
    heard(monitor, lambda one: one.what == "netns" and one.action == "deleted")
    ip("link", "set", "lo", "up", netns="azure")
    told = heard(monitor, lambda one: one.name == "lo" and "up" in one.changes)
    assert {one.netns for one in told} == {"netns:azure"}


def test_a_namespace_that_loses_two_of_three_names_at_once_is_still_watched(monitor: Monitor) -> None:
    for name in ("azure", "navy"):
        Path(f"/run/netns/{name}").touch()
        os.system(f"mount --bind /run/netns/blue /run/netns/{name}")
    heard(monitor, lambda one: one.what == "netns" and one.netns == "netns:navy")
    ip("netns", "del", "blue")
    ip("netns", "del", "azure")
    ip("link", "set", "lo", "up", netns="navy")
    told = heard(monitor, lambda one: one.name == "lo" and "up" in one.changes)
    lost = {one.netns for one in told if (one.what, one.action) == ("netns", "deleted")}
    ip("link", "set", "lo", "down", netns="navy")
    told = heard(monitor, lambda one: one.name == "lo" and "up" in one.changes)
    lost |= {one.netns for one in told if (one.what, one.action) == ("netns", "deleted")}
    assert told[-1].netns == "netns:navy"
    assert lost == {"netns:blue", "netns:azure"}
    assert monitor.netns == ["", "netns:navy"]


def test_the_other_end_is_known_by_a_name_that_is_still_there(monitor: Monitor) -> None:
    Path("/run/netns/azure").touch()
    os.system("mount --bind /run/netns/blue /run/netns/azure")
    heard(monitor, lambda one: one.what == "netns" and one.netns == "netns:azure")
    ip("link", "add", "v1", "type", "veth", "peer", "name", "v2", "netns", "blue")
    heard(monitor, lambda one: one.name == "v2")
    ip("netns", "del", "blue")
    heard(monitor, lambda one: one.what == "netns" and one.action == "deleted")
    assert monitor.peer("", monitor.links()[-1].index) == ("netns:azure", "v2")


def test_addresses_of_links_that_are_down_are_told_with_a_new_namespace(monitor: Monitor) -> None:
    ip("netns", "add", "green")
    ip("link", "add", "d1", "type", "veth", "peer", "name", "d2", netns="green")
    ip("addr", "add", "10.9.0.1/24", "dev", "d1", netns="green")
    told = heard(monitor, lambda one: one.what == "address")
    assert ("address", "new", "netns:green", "d1") in brief(told)


def test_a_snapshot_has_all_that_ip_shows(session: Session, monitor: Monitor) -> None:
    ip("link", "add", "v1", "type", "veth", "peer", "name", "v2", "netns", "blue")
    ip("addr", "add", "10.7.0.1/24", "dev", "v1")
    ip("link", "set", "v1", "up")
    ip("link", "set", "v2", "up", netns="blue")
    heard(monitor, lambda one: one.name == "v2" and one.link is not None and one.link.operstate == "up")
    told = monitor.snapshot()
    for ref, where in (("", ""), ("netns:blue", "blue")):
        shown = {(link["ifname"], link["ifindex"]) for link in ip("link", netns=where)}
        links = {(one.name, one.link.index) for one in told if one.what == "link" and one.netns == ref if one.link}
        assert links == shown
        assert ("netns", "is", ref, "") in brief(told)
    assert ("address", "is", "", "v1") in brief(told)
    assert [one.peer for one in told if (one.what, one.name) == ("link", "v1")] == [("netns:blue", "v2")]


def test_what_an_agent_says_of_its_interfaces_is_told(session: Session, tmp_path: Path) -> None:
    def say(name: str, state: str, reason: str) -> None:
        entry = {"name": name, "state": state, "reason": reason, "netns": "", "host_name": name, "ifindex": None}
        entry |= {"peer": "v2", "since": "2026-01-01T00:00:00Z"}
        (tmp_path / ".new").write_text(json.dumps(entry))
        (tmp_path / ".new").rename(tmp_path / f"{name}.json")

    say("v1", "PENDING", "peer v2 is not configured")
    with Monitor(session, label="mine", status_dir=str(tmp_path)) as monitor:
        assert [one.state["state"] for one in monitor.snapshot() if one.what == "state"] == ["PENDING"]
        say("v1", "CONFIGURED", "")
        [told] = heard(monitor, lambda one: one.what == "state")
        assert (told.action, told.name, told.changes["state"]) == ("changed", "v1", ("PENDING", "CONFIGURED"))
        (tmp_path / "v1.json").unlink()
        [told] = heard(monitor, lambda one: one.what == "state")
        assert (told.action, told.changes["state"]) == ("deleted", ("CONFIGURED", None))


def test_a_process_s_namespace_is_watched_where_it_is_asked_for(
    session: Session, make_netns: Callable[..., None], spawn: Callable[[str], int]
) -> None:
    make_netns("mortal")
    pid = spawn("mortal")
    ip("netns", "del", "mortal")
    with Monitor(session, [f"pid:{pid}"]) as monitor:
        os.system(f"nsenter -t {pid} -n ip link set lo up")
        told = heard(monitor, lambda one: one.what == "address")
        assert {one.netns for one in told} == {f"pid:{pid}"}
        os.kill(pid, 9)
        told = heard(monitor, lambda one: one.what == "netns")
        assert brief(told)[-1] == ("netns", "deleted", f"pid:{pid}", "")


def test_a_reference_that_leads_elsewhere_is_followed_there(
    session: Session, make_netns: Callable[..., None], tmp_path: Path
) -> None:
    make_netns("blue", "red")
    link = tmp_path / "ns"
    link.symlink_to("/run/netns/blue")
    with Monitor(session, [f"path:{link}"]) as monitor:
        (tmp_path / "other").symlink_to("/run/netns/red")
        (tmp_path / "other").rename(link)
        told = heard(monitor, lambda one: (one.what, one.action, one.netns) == ("netns", "new", f"path:{link}"))
        assert ("netns", "deleted", f"path:{link}", "") in brief(told)
        ip("link", "set", "lo", "up", netns="blue")
        told = heard(monitor, lambda one: one.name == "lo" and "up" in one.changes)
        assert told[-1].netns == "netns:blue"


def test_a_reference_that_leads_nowhere_is_refused_at_once(session: Session) -> None:
    with raises(NetnsNotFound, netns="netns:nowhere", taken=False):
        Monitor(session, ["nowhere"])


OWN = tuple(str(Path(monitoring.__file__).parent / f"{name}.py") for name in ("monitor", "directory", "peers"))


# Python drops what is raised while a generator expression that any() has left is closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_poll_that_is_interrupted_anywhere_leaves_no_namespace_unwatched(monitor: Monitor) -> None:
    def is_up(event: HostEvent) -> bool:
        return event.what == "address" and event.netns == "netns:green"

    for at in itertools.count(1):
        ip("netns", "add", "green")
        coming = Interrupting(at, OWN)
        coming.run(monitor.poll)
        monitor.poll(0)
        assert "netns:green" in monitor.netns, at
        ip("link", "set", "lo", "up", netns="green")
        heard(monitor, is_up)
        ip("netns", "del", "green")
        going = Interrupting(at, OWN)
        going.run(monitor.poll)
        monitor.poll(0)
        assert "netns:green" not in monitor.netns, at
        if not coming.fired and not going.fired:
            break
    assert at > 20


def test_a_monitor_is_asked_for_namespaces_only_by_references(monitor: Monitor) -> None:
    wrong: Any
    for wrong in (b"blue", 5, ["blue"], object()):
        for ask in (monitor.references, lambda wrong: monitor.peer(wrong, 1)):
            with raises(InvalidValue, field="netns"):
                ask(wrong)
    with open("/dev/null") as no_namespace, raises(NetnsNotFound):
        monitor.peer(no_namespace, 1)  # type: ignore[arg-type]
    with raises(NetnsNotFound):
        monitor.peer(no_namespace, 1)  # type: ignore[arg-type]


def test_a_closed_monitor_says_so(session: Session) -> None:
    monitor = Monitor(session)
    monitor.close()
    monitor.close()
    with pytest.raises(SessionClosed):
        monitor.poll()


def test_a_monitor_of_a_closed_session_says_so_when_there_is_a_new_namespace(home: ns.Netns, blue: str) -> None:
    with Session() as session, Monitor(session) as monitor:
        session.close()
        ip("netns", "add", "green")
        for _ in range(3):
            with raises(SessionClosed, forked=False):
                heard(monitor, lambda one: one.netns == "netns:green", 10.0)


def test_a_monitor_of_a_closed_session_says_so_when_a_reference_leads_elsewhere(
    home: ns.Netns, tmp_path: Path, blue: str, red: str
) -> None:
    link = tmp_path / "link"
    link.symlink_to("/run/netns/blue")
    with Session() as session, Monitor(session, [f"path:{link}"]) as monitor:
        session.close()
        link.unlink()
        link.symlink_to("/run/netns/red")
        for _ in range(3):
            with raises(SessionClosed, forked=False):
                heard(monitor, lambda one: one.what == "netns", 10.0)


# --- namespaces with several references


@pytest.fixture
def twice(make_netns: Callable[..., None]) -> str:
    """A namespace with the names `n1` and `alias`."""
    make_netns("n1")
    Path("/run/netns/alias").touch()
    subprocess.run(["mount", "--bind", "/run/netns/n1", "/run/netns/alias"], check=True)
    ip("link", "add", "va", "type", "veth", "peer", "name", "vb", "netns", "n1")
    return "n1"


@pytest.mark.usefixtures("twice")
def test_the_peer_of_a_link_is_known_by_every_name_of_its_namespace(session: Session) -> None:
    with Monitor(session, [f"pid:{os.getpid()}"]) as monitor:
        for ref in ("netns:n1", "netns:alias"):
            assert sorted(monitor.references(ref)) == ["netns:alias", "netns:n1"]
            assert monitor.references(ref.removeprefix("netns:")) == monitor.references(ref)
            (end,) = [link for link in monitor.links(ref) if link.name == "vb"]
            assert monitor.peer(end) == monitor.peer(ref, end.index) == ("", "va")
        assert monitor.references(f"pid:{os.getpid()}") == monitor.references("")
        assert monitor.references("netns:nowhere") == monitor.references("nowhere") == []
        ip("netns", "del", "alias")
        heard(monitor, lambda one: one.what == "netns" and one.action == "deleted")
        assert monitor.references("netns:n1") == ["netns:n1"]
        assert monitor.peer("netns:n1", seen("vb", "n1")["ifindex"]) == ("", "va")


def test_an_end_that_is_moved_keeps_its_peer(monitor: Monitor, make_netns: Callable[..., None]) -> None:
    make_netns("n1", "n2")
    ip("link", "add", "va", "type", "veth", "peer", "name", "vb", "netns", "n1")
    heard(monitor, lambda one: one.what == "link" and one.name == "vb")
    monitor.poll()
    ip("link", "set", "vb", "netns", "n2", netns="n1")
    told = heard(monitor, lambda one: (one.action, one.netns, one.name) == ("new", "netns:n2", "vb"))
    assert [one.peer for one in told if one.name == "vb"] == [("", "va")] * 2  # as it goes, and as it comes
    assert monitor.peer("", seen("va")["ifindex"]) == ("netns:n2", "vb")
    (there,) = [one for one in monitor.snapshot() if (one.what, one.name) == ("link", "vb")]
    assert there.peer == ("", "va")
    ip("link", "del", "va")
    heard(monitor, lambda one: (one.action, one.netns, one.name) == ("deleted", "netns:n2", "vb"))


def test_a_pair_with_the_ifindexes_of_one_that_went_at_once_has_its_own_peers(monitor: Monitor) -> None:
    make = ["link", "add", "va", "index", "70", "type", "veth", "peer", "name"]
    ip(*make, "vb", "index", "71")
    heard(monitor, lambda one: one.what == "link" and one.name == "vb")
    monitor.poll()
    ip("link", "del", "va")
    ip(*make, "vc", "index", "72")
    heard(monitor, lambda one: one.what == "link" and one.name == "vc")
    assert monitor.peer("", 70) == ("", "vc")
    assert monitor.peer("", 72) == ("", "va")
    assert monitor.peer("", 71) is None


@pytest.fixture
def resting(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> Monitor:
    """A monitor that does not look at all names for an hour, because that takes so long."""
    monkeypatch.setattr(monitor._all_names, "_not_before", time.monotonic() + 3600)
    return monitor


def test_names_that_come_and_go_are_told_while_it_is_too_costly_to_look_at_all_names(
    resting: Monitor, make_netns: Callable[..., None]
) -> None:
    for _ in range(3):
        make_netns("green")
        heard(resting, lambda one: (one.what, one.action, one.netns) == ("netns", "new", "netns:green"))
        ip("netns", "del", "green")
        heard(resting, lambda one: (one.what, one.action, one.netns) == ("netns", "deleted", "netns:green"))
    assert resting.netns == ["", "netns:blue"]


def test_a_name_to_which_a_namespace_is_mounted_later_is_told_while_it_is_too_costly_to_look_at_all_names(
    resting: Monitor,
) -> None:
    place = Path("/run/netns/green")
    place.touch()
    try:
        while resting.poll(0.1):
            pass
        assert resting.netns == ["", "netns:blue"]
        bind("/run/netns/blue", place)
        heard(resting, lambda one: (one.what, one.action, one.netns) == ("netns", "new", "netns:green"))
        unbind(place)
        place.unlink()
        heard(resting, lambda one: (one.what, one.action, one.netns) == ("netns", "deleted", "netns:green"))
    finally:
        place.unlink(missing_ok=True)


def test_a_namespace_that_is_mounted_over_another_is_told_when_all_names_are_looked_at(
    monitor: Monitor, make_netns: Callable[..., None]
) -> None:
    make_netns("green")
    heard(monitor, lambda one: (one.what, one.action, one.netns) == ("netns", "new", "netns:green"))
    bind("/proc/self/ns/net", "/run/netns/green")
    try:
        told = heard(monitor, lambda one: (one.what, one.action, one.netns) == ("netns", "new", "netns:green"))
        assert ("netns", "deleted", "netns:green", "") in brief(told)
    finally:
        unbind("/run/netns/green")


def test_the_work_for_a_name_does_not_depend_on_how_many_there_are(
    resting: Monitor, make_netns: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []

    def counted(path: str) -> tuple[int, int] | None:
        looks.append(path)
        return identity_at(path)

    monkeypatch.setattr(monitoring, "identity_at", counted)
    for name in (f"n{number}" for number in range(20)):
        make_netns(name)
        heard(resting, lambda one, ref=f"netns:{name}": (one.action, one.netns) == ("new", ref))  # type: ignore[misc]
    assert len(looks) < 20 * 6
    looks.clear()
    for name in (f"n{number}" for number in range(20)):
        ip("netns", "del", name)
        heard(resting, lambda one, ref=f"netns:{name}": (one.action, one.netns) == ("deleted", ref))  # type: ignore[misc]
    assert len(looks) < 20 * 6


def test_only_the_states_that_have_changed_are_read_again(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(path: str, *args: Any, **fields: Any) -> Any:
        read.append(path)
        return content(path, *args, **fields)

    names = [f"v{number}" for number in range(20)]
    write_states(tmp_path, "PENDING", *names)
    with Monitor(session, label="mine", status_dir=str(tmp_path)) as monitor:
        monkeypatch.setattr(published, "content", counted)
        for name in names[:5]:
            write_states(tmp_path, "CONFIGURED", name)
            [told] = heard(monitor, lambda one: one.what == "state")
            assert (told.action, told.name) == ("changed", name)
        (tmp_path / "v1.json").unlink()
        [told] = heard(monitor, lambda one: one.what == "state")
        assert (told.action, told.name) == ("deleted", "v1")
        assert len(monitor.snapshot()) >= 19
        assert {path for path in read if path.endswith(".json")} == {f"{tmp_path}/{name}.json" for name in names[:5]}
        (tmp_path / "v7.json").unlink()
        tmp_path.rename(tmp_path.with_name("away"))
        heard(monitor, lambda one: (one.action, one.name) == ("deleted", "v19"))


@pytest.mark.parametrize("how", ["unmounted", "mounted over"])
def test_the_descriptor_is_readable_when_a_look_that_was_put_off_has_its_turn(
    session: Session, make_netns: Callable[..., None], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    make_netns("first", "second", "third")

    def end(turn: Turn, begun: float) -> None:
        turn._not_before = time.monotonic() + 1.0

    monkeypatch.setattr(Turn, "end", end)  # as if a look at all names took a tenth of a second
    with Monitor(session) as monitor:
        if how == "unmounted":
            subprocess.run(["umount", "/run/netns/second"], check=True)
            expected = [("netns", "deleted", "netns:second")]
        else:
            subprocess.run(["mount", "--bind", "/run/netns/first", "/run/netns/second"], check=True)
            expected = [("netns", "deleted", "netns:second"), ("netns", "new", "netns:second")]
        events: list[HostEvent] = []
        while not [one for one in events if one.what == "netns"]:
            readable, _, _ = select.select([monitor.fileno()], [], [], 10.0)
            assert readable
            events += monitor.poll()
        told = [(one.what, one.action, one.netns) for one in events if one.what == "netns"]
        assert told == expected
        monitor.poll()
        assert not select.select([monitor.fileno()], [], [], 0)[0]


def test_a_state_is_not_deleted_because_its_directory_may_not_be_read(session: Session, tmp_path: Path) -> None:
    directory = tmp_path / "statuses"
    directory.mkdir()
    write_states(directory, "PENDING", "v1", "v2")
    with Monitor(session, label="mine", status_dir=str(directory)) as monitor:
        directory.chmod(0)
        write_states(directory, "CONFIGURED", "v1")
        with dropped(), pytest.raises(NotPermitted) as caught:
            heard(monitor, lambda one: one.what == "state")
        assert (caught.value.filename, caught.value.capability) == (str(directory), "")
        directory.chmod(0o700)
        [told] = heard(monitor, lambda one: one.what == "state")
        assert (told.action, told.name) == ("changed", "v1")


@pytest.mark.parametrize("left", range(6))
def test_a_poll_without_descriptors_loses_no_change_of_a_state(session: Session, tmp_path: Path, left: int) -> None:
    write_states(tmp_path, "PENDING", "v1", "v2")
    with Monitor(session, label="mine", status_dir=str(tmp_path)) as monitor:
        write_states(tmp_path, "CONFIGURED", "v1")
        told: list[HostEvent] = []
        with no_descriptor_left() as give:
            for _ in range(left):
                give()
            with suppress(NetlinkError):
                told = heard(monitor, lambda one: one.what == "state")
        [told_once] = told or heard(monitor, lambda one: one.what == "state")
        assert (told_once.action, told_once.name) == ("changed", "v1")
        assert {one.name for one in monitor.snapshot() if one.what == "state"} == {"v1", "v2"}


def write_states(directory: Path, state: str, *names: str) -> None:
    """Write these states as an agent does."""
    for name in names:
        entry = {"name": name, "state": state, "reason": "", "netns": "", "host_name": name, "ifindex": None}
        entry |= {"peer": "p", "since": "2026-01-01T00:00:00Z"}
        (directory / ".new").write_text(json.dumps(entry))
        (directory / ".new").rename(directory / f"{name}.json")
