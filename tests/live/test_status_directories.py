"""Status directories: each agent writes and deletes only its own statuses, and readers confuse none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.commands import Vethctl
from tests.live.agent_process import PATIENCE, ROOT, VETHCTL
from tests.live.applying import value
from tests.live.other_user import OTHER
from tests.programs import attended
from tests.witness import poll
from vethlib import ns
from vethlib.agent.process.instance import Instance
from vethlib.agent.process.rundir import status_directory
from vethlib.agent.state import State
from vethlib.agent.status import Status
from vethlib.agent.stores.agentfile import AgentFile
from vethlib.agent.stores.agentreport import read_report
from vethlib.agent.stores.files.devicenote import DeviceNote
from vethlib.agent.stores.protocol import StoreError
from vethlib.agent.stores.statusdirectory import StatusDirectory
from vethlib.agent.stores.statuses import StatusFiles
from vethlib.errors import InvalidValue

LABEL = "shared"

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def hosts(make_netns: Callable[..., None]) -> tuple[str, str, str]:
    """Three hosts on one machine, which have the same /run."""
    make_netns("h1", "h2", "h3")
    return "h1", "h2", "h3"


def at(host: str, *command: str) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{host}", *command] if host else [*command]


def names(host: str, *options: str, label: str = LABEL) -> tuple[int, set[str]]:
    """Return the exit code of vethctl status on a host, and the interfaces that it shows."""
    command = at(host, *VETHCTL, "status", "--json", "--label", label, *options)
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return done.returncode, {entry["name"] for entry in json.loads(done.stdout)}


@contextmanager
def agent(path: Path, host: str, name: str, *options: str, label: str = LABEL) -> Iterator[subprocess.Popen[bytes]]:
    """An agent on a host with one pair, which it has created."""
    store = path / f"store-{name}"
    store.mkdir(exist_ok=True)
    (store / "pair.json").write_text(json.dumps([value(f"{name}1", f"{name}2"), value(f"{name}2", f"{name}1")]))
    command = [*VETHCTL, "agent", "--store", f"dir:{store}", "--docker", "off", "--label", label, *options]
    with attended(subprocess.Popen(at(host, *command), cwd=ROOT)) as process:
        assert poll(lambda: names(host, *options, label=label) == (0, {f"{name}1", f"{name}2"}))
        yield process
        process.terminate()
        assert process.wait(PATIENCE) == 0


def test_agents_of_one_label_on_two_hosts_have_their_own_statuses(tmp_path: Path, hosts: tuple[str, str, str]) -> None:
    first, second, third = hosts
    with agent(tmp_path, first, "a"):
        with agent(tmp_path, second, "b"):
            assert names(first) == (0, {"a1", "a2"})
            assert names(second) == (0, {"b1", "b2"})
        assert names(second) == (2, {"b1", "b2"})
        assert names(first) == (0, {"a1", "a2"})
    with agent(tmp_path, second, "b"):
        assert names(first) == (2, {"a1", "a2"})
        assert names(second) == (0, {"b1", "b2"})
    with agent(tmp_path, third, "c"):
        assert names(first) == (2, {"a1", "a2"})
        assert names(second) == (2, {"b1", "b2"})


def test_the_usual_directory_is_that_of_another_host_only_as_long_as_that_exists(
    tmp_path: Path, hosts: tuple[str, str, str]
) -> None:
    first, second, _ = hosts
    with agent(tmp_path, first, "a"):
        pass
    ns.remove(first)

    def is_usual() -> bool:
        for own in Path(f"/run/vethlib/{LABEL}").glob("status@*"):
            shutil.rmtree(own)  # of an attempt while the namespace was held open
        with agent(tmp_path, second, "b"):
            return (Path(f"/run/vethlib/{LABEL}/status") / "b1.json").exists()

    assert poll(is_usual)  # a search of another process may hold the namespace open for a moment


@pytest.mark.parametrize(
    ("second", "way"), [((LABEL, "h2"), "status"), (("other", ""), "also/../status"), (("other", "h2"), "link")]
)
def test_two_agents_do_not_share_a_directory(
    tmp_path: Path, hosts: tuple[str, str, str], second: tuple[str, str], way: str
) -> None:
    (tmp_path / "also").mkdir()
    (tmp_path / "link").symlink_to("status")
    label, host = second
    with agent(tmp_path, "", "a", "--status-dir", f"{tmp_path}/status"):
        before = sorted(os.listdir(tmp_path / "status"))
        command = [*VETHCTL, "--json", "agent", "--store", f"dir:{tmp_path}", "--docker", "off", "--label", label]
        command = at(host, *command, "--status-dir", f"{tmp_path}/{way}", "--once")
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=PATIENCE)
        assert done.returncode == 1, done.stderr
        error = json.loads(done.stderr.splitlines()[-1])
        assert (error["code"], error["field"]) == ("invalid-value", "--status-dir")
        assert sorted(os.listdir(tmp_path / "status")) == before
        assert names("", "--status-dir", f"{tmp_path}/status") == (0, {"a1", "a2"})
        assert names(host, "--status-dir", f"{tmp_path}/status", label=label)[0] != 0
    with agent(tmp_path, host, "b", "--status-dir", f"{tmp_path}/{way}", label=label):
        pass  # it is free again


def test_a_store_is_refused_as_the_directory_and_nothing_is_left_there(tmp_path: Path, vethctl: Vethctl) -> None:
    (tmp_path / "pair.json").write_text("[]")
    where = ("--store", f"dir:{tmp_path}", "--status-dir", str(tmp_path), "--docker", "off", "--label", LABEL)
    refused = vethctl("--json", "agent", "--once", *where)
    assert (refused.code, refused.error["field"]) == (1, "--status-dir")
    assert os.listdir(tmp_path) == ["pair.json"]


def test_statuses_of_another_label_are_not_shown(tmp_path: Path, vethctl: Vethctl) -> None:
    StatusFiles(tmp_path).publish({"a": Status("a", State.CONFIGURED, "", 1.0)})
    AgentFile(tmp_path, "dir:/x", label="a").published()
    where = ("--status-dir", str(tmp_path), "--json")
    assert [entry["name"] for entry in vethctl("status", "--label", "a", *where).json] == ["a"]
    with closing(Instance("b")):
        shown = vethctl("status", "--label", "b", *where)
        assert (shown.code, shown.json) == (3, [])
        assert vethctl("describe", "a", "--label", "b", *where).code == 1
    shown = vethctl("status", "--label", "b", *where)
    assert (shown.code, shown.json) == (2, [])
    assert shown.error["code"] == "not-running"
    assert "--label a" in shown.error["hint"]  # whose they are


def test_an_agent_that_starts_is_not_taken_for_the_one_whose_statuses_are_left(
    tmp_path: Path, vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vethlib.agent.process.answering._PATIENCE", 0.1)  # none of these answers
    where = ("--status-dir", str(tmp_path), "--label", LABEL)
    report = AgentFile(tmp_path, "dir:/x", label=LABEL)
    StatusFiles(tmp_path).publish({"a": Status("a", State.CONFIGURED, "", 1.0)})
    report.published()
    report.ended()
    assert vethctl("status", *where).code == 2
    with closing(Instance(LABEL)):
        for begin in (lambda: None, report.write, lambda: AgentFile(tmp_path, "dir:/y").write()):
            begin()
            said = vethctl("status", *where, "--json")
            assert (said.code, [entry["name"] for entry in said.json]) == (3, ["a"])
            assert vethctl("status", "a", *where).code == 3
            assert vethctl("describe", "a", *where).code == 3
        report.published()
        assert vethctl("status", *where).code == 0


@pytest.fixture
def open_directory() -> Iterator[str]:
    """A directory that every user can reach and write to."""
    with TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o777)
        yield directory


def test_an_ordinary_user_reads_the_statuses_of_the_host_but_writes_its_own(
    monkeypatch: pytest.MonkeyPatch, open_directory: str
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", open_directory)
    of_host = StatusDirectory(LABEL)
    assert of_host.path == status_directory(LABEL) == f"/run/vethlib/{LABEL}/status"

    own = f"{open_directory}/vethlib/{LABEL}/status"
    os.seteuid(OTHER)
    try:
        assert status_directory(LABEL) == of_host.path
        with closing(StatusDirectory(LABEL)) as mine:
            assert mine.path == own
            assert status_directory(LABEL) == own
    finally:
        os.seteuid(0)
        of_host.close()


def test_a_directory_is_locked_until_its_agent_closes_it(tmp_path: Path) -> None:
    first = StatusDirectory("a", str(tmp_path))
    AgentFile(first.path, "dir:/x", label="a").write()
    for label in ("a", "b"):
        with pytest.raises(InvalidValue) as caught:
            StatusDirectory(label, f"{tmp_path}/")
        assert caught.value.field == "--status-dir"
    StatusDirectory("b", str(tmp_path / "inside")).close()
    first.close()
    first.close()
    second = StatusDirectory("b", str(tmp_path))
    second.close()
    assert [name for name in os.listdir("/run/vethlib") if name.endswith("@status.lock")] == []
    report = read_report(str(tmp_path))
    assert report is not None
    assert report.label == "a"


def locks() -> int:
    return sum(name.endswith("@status.lock") for name in os.listdir("/run/vethlib"))


def configured(name: str) -> dict[str, Status]:
    return {name: Status(name, State.CONFIGURED, "", 1.0)}


@pytest.mark.parametrize("how", ["removed", "moved away"])
def test_a_directory_that_an_agent_creates_again_is_locked_again(tmp_path: Path, how: str) -> None:
    path = tmp_path / "status"
    with closing(StatusDirectory("a", str(path))) as first:
        files = StatusFiles(first)
        files.publish(configured("a"))
        path.rename(tmp_path / "away")
        if how == "removed":
            shutil.rmtree(tmp_path / "away")
        files.publish(configured("b"))
        with pytest.raises(InvalidValue):
            StatusDirectory("b", str(path))
        assert locks() == 1
    assert locks() == 0


def test_a_directory_that_another_agent_has_created_again_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "status"
    with closing(StatusDirectory("a", str(path))) as first:
        files, report = StatusFiles(first), AgentFile(first, "dir:/a", label="a")
        files.publish(configured("a"))
        report.published()
        note, device = DeviceNote(first, "/a"), 3
        note.set(device)
        path.rename(tmp_path / "away")
        with closing(StatusDirectory("b", str(path))) as second:
            StatusFiles(second).publish(configured("b"))
            AgentFile(second, "dir:/b", label="b").published()
            DeviceNote(second, "/b").set(2)
            for _ in range(2):
                with pytest.raises(StoreError):
                    files.publish(configured("c"))
                report.write("away")
                note.set(device := device + 1)
            assert sorted(os.listdir(path)) == [".agent", ".store", "b.json"]
            assert json.loads((path / ".store").read_text()) == {"path": "/b", "device": 2}
            assert (said := read_report(str(path))) is not None
            assert (said.label, said.outage) == ("b", "")
        files.publish({})
        report.write()
        assert sorted(os.listdir(path)) == [".agent", ".store", "a.json", "c.json"]
        assert (said := read_report(str(path))) is not None
        assert said.label == "a"
        with pytest.raises(InvalidValue):
            StatusDirectory("b", str(path))
    assert locks() == 0


def test_a_directory_that_its_agent_has_lost_is_free(tmp_path: Path) -> None:
    """As is a new one with its inode number: only the path of that agent shows that it uses another one."""
    path, away = tmp_path / "status", tmp_path / "away"
    with closing(StatusDirectory("a", str(path))) as first:
        files = StatusFiles(first)
        files.publish(configured("a"))
        path.rename(away)
        with closing(StatusDirectory("b", str(away))) as second:
            with pytest.raises(InvalidValue):
                StatusDirectory("c", str(away))
            files.publish(configured("c"))
            for used in (path, away):
                with pytest.raises(InvalidValue):
                    StatusDirectory("d", str(used))
            StatusFiles(second).publish(configured("b"))
            assert (sorted(os.listdir(path)), os.listdir(away)) == (["a.json", "c.json"], ["b.json"])
            assert locks() == 2
        StatusDirectory("d", str(away)).close()
        assert locks() == 1
    assert locks() == 0


def test_an_agent_that_gets_its_directory_back_from_another_one_locks_it_again(tmp_path: Path) -> None:
    path, away = tmp_path / "status", tmp_path / "away"
    with closing(StatusDirectory("a", str(path))) as first, ExitStack() as others:
        files = StatusFiles(first)
        files.publish(configured("a"))
        path.rename(away)
        second = others.enter_context(closing(StatusDirectory("b", str(away))))
        away.rename(path)
        files.publish(configured("c"))
        StatusFiles(second).publish(configured("b"))
        assert (sorted(os.listdir(path)), os.listdir(away)) == (["a.json", "c.json"], ["b.json"])
        for used in (path, away):
            with pytest.raises(InvalidValue):
                StatusDirectory("d", str(used))
    assert locks() == 0


def test_a_directory_that_another_mount_namespace_shows_elsewhere_is_not_free(tmp_path: Path) -> None:
    path = tmp_path / "status"
    path.mkdir()
    program = (
        "import sys; from vethlib.agent.stores.statusdirectory import StatusDirectory\n"
        "held = StatusDirectory('a', sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    )
    private = f'mkdir {tmp_path}/only; mount --bind {path} {tmp_path}/only; exec "$@"'
    command = ["unshare", "-m", "sh", "-c", private, "sh", sys.executable, "-c", program, f"{tmp_path}/only"]
    with attended(subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(InvalidValue):
            StatusDirectory("b", str(path))
        process.communicate()
    StatusDirectory("b", str(path)).close()


def test_an_agent_whose_directory_was_removed_keeps_others_from_the_new_one(tmp_path: Path, vethctl: Vethctl) -> None:
    path = tmp_path / "status"
    with agent(tmp_path, "", "a", "--status-dir", str(path), label="a"):
        shutil.rmtree(path)
        store = tmp_path / "store-a" / "pair.json"
        store.write_text(store.read_text().replace('"enabled": true', '"enabled": true, "mtu": 1400'))
        assert poll(lambda: names("", "--status-dir", str(path), label="a") == (0, {"a1", "a2"}))
        where = ("--status-dir", str(path), "--store", f"dir:{tmp_path}", "--docker", "off", "--label", "b")
        refused = vethctl("--json", "agent", "--once", *where)
        assert (refused.code, refused.error["field"]) == (1, "--status-dir")
        assert names("", "--status-dir", str(path), label="a") == (0, {"a1", "a2"})
