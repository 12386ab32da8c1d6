"""A resolver with a real Docker Engine: its answers follow everything that happens to containers and the engine."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.backends.engine import ROOT, Engine, missing
from tests.backends.resolving import NOT_RUNNING, answer, down, until
from tests.capabilities import dropped
from tests.refusing import raises
from tests.slack import slack
from tests.witness import open_fds, poll
from vethlib import InvalidValue, NetnsNotFound, Session, ns
from vethlib.agent import DockerResolver, Resolver
from vethlib.follow.resolver import Remarks

pytestmark = pytest.mark.slow

CAP_DAC_OVERRIDE = 1
FAKE = Path(__file__).with_name("engine_fake.py")

Fake = Callable[..., "subprocess.Popen[bytes]"]


def closed(resolver: DockerResolver) -> float:
    """How long it takes to close it."""
    began = time.monotonic()
    resolver.close()
    return time.monotonic() - began


def threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "vethlib-docker"]


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    """Starts engines that are none: a kind, and a command that comes before the program."""
    started: list[subprocess.Popen[bytes]] = []

    def start(kind: str = "", *before: str) -> subprocess.Popen[bytes]:
        path = tmp_path / "fake.sock"
        path.unlink(missing_ok=True)
        started.append(subprocess.Popen([*before, sys.executable, str(FAKE), str(path), *([kind] if kind else [])]))
        assert poll(path.exists)
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait()


@pytest.fixture
def to_fake(tmp_path: Path) -> Iterator[DockerResolver]:
    resolver = DockerResolver(str(tmp_path / "fake.sock"))
    yield resolver
    resolver.close()


# --- containers


def test_a_label_in_the_environment_and_a_container_label_stand_for_a_process(
    engine: Engine, resolver: DockerResolver
) -> None:
    by_env = engine.run("by-env", "vnf1")
    by_label = engine.run("by-label", labels={"microservice_label": "vnf2"})
    engine.run("neither")
    until(resolver, by_env.netns)
    assert resolver("vnf2") == by_label.netns
    with raises(NetnsNotFound, netns="microservice:vnf3"):
        resolver("vnf3")
    assert isinstance(resolver, Resolver)
    assert isinstance(resolver, Remarks)


@pytest.mark.timing
def test_nothing_happens_before_a_label_is_asked_for_and_asking_waits_for_nothing(
    engine: Engine, resolver: DockerResolver
) -> None:
    assert threads() == []
    assert not select.select([resolver], [], [], 0.05)[0]
    began = time.monotonic()
    assert answer(resolver).code == "unanswered"
    assert time.monotonic() - began < 0.05 + slack()
    until(resolver, NOT_RUNNING)
    assert len(threads()) == 1


def test_the_sdk_is_imported_when_a_label_is_asked_for(engine: Engine) -> None:
    program = f"""
import sys
from vethlib.agent import DockerResolver
resolver = DockerResolver({engine.socket!r}, patience=60)
assert "docker" not in sys.modules
try:
    resolver("vnf1")
except LookupError as error:
    print(error, "docker" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == f"{NOT_RUNNING} True\n"


def test_with_patience_the_first_answer_is_waited_for(engine: Engine) -> None:
    container = engine.run("vnf", "vnf1")
    resolver = DockerResolver(engine.socket, patience=60.0)
    try:
        assert resolver("vnf1") == container.netns
    finally:
        resolver.close()


def test_without_an_engine_patience_is_not_tried(tmp_path: Path) -> None:
    resolver = DockerResolver(str(tmp_path / "none"), patience=60.0)
    try:
        began = time.monotonic()
        assert answer(resolver).code == "absent"
        assert time.monotonic() - began < 20
    finally:
        resolver.close()


def test_starts_stops_kills_and_removals_are_followed(engine: Engine, resolver: DockerResolver) -> None:
    until(resolver, NOT_RUNNING)
    container = engine.create("vnf", "vnf1")
    for end in (container.stop, container.kill, lambda: os.kill(container.pid, signal.SIGKILL), container.remove):
        container.start()
        until(resolver, container.netns)
        end()
        until(resolver, NOT_RUNNING)


def test_each_change_is_told_of_its_own_label(engine: Engine, resolver: DockerResolver) -> None:
    until(resolver, NOT_RUNNING)
    engine.run("other", "vnf2")
    assert select.select([resolver], [], [], 20)[0]
    assert resolver.changed() == {"vnf2"}
    engine.run("neither")
    assert not select.select([resolver], [], [], 0.1)[0]


def test_one_restarted_in_place_has_its_new_process(engine: Engine, resolver: DockerResolver) -> None:
    container = engine.run("vnf", "vnf1")
    until(resolver, container.netns)
    for _ in range(3):
        before = container.pid
        container.restart()
        assert container.pid != before
        until(resolver, container.netns)


def test_one_started_again_within_the_same_second_has_its_new_process(engine: Engine, resolver: DockerResolver) -> None:
    container = engine.run("vnf", "vnf1")
    until(resolver, container.netns)
    quick = 0
    for _ in range(20):
        ended = time.monotonic()
        container.kill()
        assert poll(lambda: container.pid == 0)
        container.start()
        quick += time.monotonic() - ended < 1
        until(resolver, container.netns)
        if quick == 3:
            break
    assert quick  # however busy the machine is


def test_one_that_the_engine_restarts_has_its_new_process(engine: Engine, resolver: DockerResolver) -> None:
    container = engine.run("vnf", "vnf1", RestartPolicy={"Name": "always"})
    until(resolver, container.netns)
    before = container.pid
    os.kill(before, signal.SIGKILL)
    until(resolver, lambda said: said not in (f"pid:{before}", NOT_RUNNING))
    assert answer(resolver) == container.netns


def test_one_that_removes_itself_is_not_running(engine: Engine, resolver: DockerResolver) -> None:
    container = engine.run("vnf", "vnf1", AutoRemove=True)
    until(resolver, container.netns)
    container.kill()
    until(resolver, NOT_RUNNING)


def test_a_paused_one_runs_and_a_signal_that_does_not_end_one_changes_nothing(
    engine: Engine, resolver: DockerResolver
) -> None:
    container = engine.run("vnf", "vnf1")
    until(resolver, container.netns)
    netns = container.netns
    for what in (container.pause, container.unpause, lambda: container.kill("SIGCONT")):
        what()
        assert not select.select([resolver], [], [], 0.1)[0]
        assert answer(resolver) == netns
    container.pause()
    late = DockerResolver(engine.socket, patience=60.0)
    assert answer(late) == netns
    late.close()


def test_a_renamed_one_keeps_its_label_and_one_replaced_by_another_has_another(
    engine: Engine, resolver: DockerResolver
) -> None:
    container = engine.run("vnf", "vnf1")
    until(resolver, container.netns)
    container.rename("renamed")
    assert answer(resolver) == container.netns
    container.remove()
    replacement = engine.run("vnf", "vnf2")
    until(resolver, NOT_RUNNING)
    assert poll(lambda: answer(resolver, "vnf2") == replacement.netns)


def test_of_two_with_one_label_the_longer_running_one_answers_while_it_does(
    engine: Engine, resolver: DockerResolver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vethlib.agent")
    second = engine.create("second", "vnf1")  # created first
    first = engine.run("first", "vnf1")
    until(resolver, first.netns)
    assert resolver.remark("vnf1") == ""
    second.start()
    says = "2 containers are microservice vnf1: first is used, which has been running longest, not second"
    assert poll(lambda: resolver.remark("vnf1") == says)
    assert poll(lambda: says in caplog.messages)
    late = DockerResolver(engine.socket, patience=60.0)
    assert (answer(late), late.remark("vnf1")) == (first.netns, says)
    late.close()
    assert answer(resolver) == first.netns
    second.rename("third")
    assert poll(lambda: resolver.remark("vnf1") == says.replace("second", "third"))
    first.restart()
    until(resolver, second.netns)
    assert poll(lambda: resolver.remark("vnf1").endswith(": third is used, which has been running longest, not first"))
    second.kill()
    until(resolver, first.netns)
    assert poll(lambda: resolver.remark("vnf1") == "")
    assert poll(lambda: caplog.messages[-1] == "no more than one container has the label vnf1 now")


def test_many_containers_that_come_and_go_are_all_known_in_the_end(engine: Engine, resolver: DockerResolver) -> None:
    until(resolver, NOT_RUNNING)
    containers = [engine.create(f"vnf{number}", f"vnf{number}") for number in range(5)]

    def flap(one: int) -> None:
        for _ in range(one % 3 + 1):
            containers[one].start()
            containers[one].kill()
            containers[one].start()

    flapping = [threading.Thread(target=flap, args=(one,)) for one in range(5)]
    for thread in flapping:
        thread.start()
    for thread in flapping:
        thread.join()
    for number, container in enumerate(containers):
        assert poll(lambda: answer(resolver, f"vnf{number}") == container.netns)  # noqa: B023


# --- the engine


def test_an_engine_that_is_absent_at_the_start_is_found_when_it_comes(
    make_engine: Callable[[], Engine], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vethlib.agent")
    engine = make_engine()
    resolver = DockerResolver(engine.socket)
    try:
        reason = f"there is no Docker Engine yet: {engine.socket} does not exist"
        until(resolver, reason)
        time.sleep(1)  # it tries less often as time goes by
        engine.up()
        assert until(resolver, NOT_RUNNING) < 10
        engine.stop()
        until(resolver, down)
        engine.up()
        assert until(resolver, NOT_RUNNING) < 10
    finally:
        resolver.close()
    answers = f"the Docker Engine at {engine.socket} answers: it has 0 microservices"
    lost = "microservices cannot be found, so their links are left as they are: "
    assert caplog.messages[:2] == [lost + reason, answers]
    assert caplog.messages[2].startswith(lost + f"the Docker Engine at {engine.socket} ")
    assert caplog.messages[3:] == [answers]


def test_an_engine_that_was_killed_is_unknown_and_then_known_anew(engine: Engine, resolver: DockerResolver) -> None:
    """No event tells of what happens while it is away."""
    lives, dies, comes = engine.run("lives", "vnf1"), engine.run("dies", "vnf2"), engine.create("comes", "vnf3")
    until(resolver, lives.netns)
    netns, dying = lives.netns, dies.pid
    for end in (engine.kill9, engine.stop):
        end()
        until(resolver, down)
        assert down(answer(resolver, "vnf2"))
        if end == engine.kill9:
            os.kill(dying, signal.SIGKILL)
        engine.up()
        comes.start()
        until(resolver, netns)
        assert lives.netns == netns
        assert answer(resolver, "vnf2") == "microservice vnf2 is not running"
        assert poll(lambda: answer(resolver, "vnf3") == comes.netns)
        comes.stop()


def test_who_answers_for_two_is_the_same_after_the_engine_was_killed(engine: Engine, resolver: DockerResolver) -> None:
    first, second = engine.run("first", "vnf1"), engine.run("second", "vnf1")
    until(resolver, first.netns)
    for _ in range(2):
        engine.kill9()
        until(resolver, down)
        assert resolver.remark("vnf1") == ""
        engine.up()
        until(resolver, first.netns)
        assert resolver.remark("vnf1").endswith("first is used, which has been running longest, not second")
    first.kill()
    until(resolver, second.netns)


def test_one_restarted_while_nobody_listened_has_its_new_process(engine: Engine, resolver: DockerResolver) -> None:
    container = engine.run("vnf", "vnf1", RestartPolicy={"Name": "always"})
    until(resolver, container.netns)
    before = container.pid
    engine.kill9()
    until(resolver, down)
    os.kill(before, signal.SIGKILL)
    engine.up()
    until(resolver, lambda said: said.startswith("pid:") and said != f"pid:{before}")
    assert answer(resolver) == container.netns


def test_an_engine_that_fails_to_answer_is_asked_again(fake: Fake, to_fake: DockerResolver, tmp_path: Path) -> None:
    broken = fake("broken")
    until(to_fake, lambda said: "the disk is full" in said)
    assert answer(to_fake).code == "engine-error"
    broken.kill()
    broken.wait()
    fake()
    assert until(to_fake, NOT_RUNNING) < 2


def test_a_rootless_engine_is_refused(fake: Fake, to_fake: DockerResolver, tmp_path: Path) -> None:
    fake("rootless")
    until(to_fake, lambda said: "runs rootless" in said)
    assert answer(to_fake) == (
        f"the Docker Engine at {tmp_path}/fake.sock runs rootless: the network namespaces of its containers belong to "
        "a user namespace of its own; use an engine that runs as root"
    )


def test_an_engine_that_counts_processes_otherwise_is_refused(
    fake: Fake, to_fake: DockerResolver, tmp_path: Path
) -> None:
    """Its process 42 is not ours."""
    if why := missing():
        pytest.skip(why)
    fake("", "unshare", "--pid", "--fork", "--kill-child")
    until(to_fake, lambda said: "cannot be used" in said)
    assert answer(to_fake) == (
        f"the Docker Engine at {tmp_path}/fake.sock cannot be used, because it is in another pid "
        "namespace: run this where the engine runs (--pid host)"
    )


def test_the_engine_outside_of_a_container_is_refused(engine: Engine) -> None:
    engine.run("vnf", "vnf1")
    program = f"""
from vethlib.agent import DockerResolver
try:
    print(DockerResolver({engine.socket!r}, patience=60)("vnf1"))
except Exception as error:
    print(error.code)
"""
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "other-pid-namespace\n"


def test_a_socket_that_may_not_be_opened_says_how_to_be_allowed_to(engine: Engine) -> None:
    resolver = DockerResolver(engine.socket, patience=60.0)
    mode = os.stat(engine.socket).st_mode
    os.chmod(engine.socket, 0)
    try:
        with dropped(CAP_DAC_OVERRIDE):  # which the thread that it starts inherits
            assert answer(resolver) == (
                f"this user may not connect to the Docker Engine at {engine.socket}: run as root, or join the group "
                "docker and log in again"
            )
        os.chmod(engine.socket, mode)
        until(resolver, NOT_RUNNING)
    finally:
        os.chmod(engine.socket, mode)
        resolver.close()


def test_without_the_sdk_it_is_named(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    resolver = DockerResolver(engine.socket, patience=60.0)
    assert answer(resolver).code == "not-installed"
    assert poll(lambda: threads() == [])
    resolver.close()


def test_another_host_s_engine_is_refused() -> None:
    with raises(InvalidValue, field="url"):
        DockerResolver("tcp://127.0.0.1:2375")


# --- its end, and what it holds meanwhile


def test_it_ends_at_once_while_it_waits_for_events_and_leaves_nothing(engine: Engine) -> None:
    fds = open_fds()
    for _ in range(3):
        resolver = DockerResolver(engine.socket)
        until(resolver, NOT_RUNNING)
        assert closed(resolver) < 5  # or an answer would be waited for
        assert poll(lambda: threads() == [])
        resolver.close()
        assert answer(resolver).code == "closed"
    assert open_fds() == fds


def test_connections_that_were_lost_leave_nothing(engine: Engine, resolver: DockerResolver) -> None:
    until(resolver, NOT_RUNNING)
    engine.kill9()
    until(resolver, down)
    fds = open_fds()
    for _ in range(3):
        engine.up()
        until(resolver, NOT_RUNNING)
        engine.kill9()
        until(resolver, down)
    assert poll(lambda: open_fds() == fds)


def test_it_ends_at_once_where_there_is_no_engine(tmp_path: Path) -> None:
    fds = open_fds()
    for kind in ("absent", "unasked"):
        resolver = DockerResolver(str(tmp_path / "none"))
        if kind == "absent":
            until(resolver, down)
        assert closed(resolver) < 5  # or an answer would be waited for
    assert poll(lambda: threads() == [])
    assert open_fds() == fds


def test_an_engine_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "hangs")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(8)
        resolver = DockerResolver(path)
        began = time.monotonic()
        assert answer(resolver).code == "unanswered"
        assert poll(lambda: bool(select.select([listening], [], [], 0)[0]))
        assert answer(resolver).code == "unanswered"
        assert time.monotonic() - began < 5
        assert closed(resolver) < 5  # or an answer would be waited for
    assert poll(lambda: threads() == [])  # the end of the socket is an answer


def test_an_engine_that_takes_a_connection_and_says_nothing_does_not_answer(tmp_path: Path) -> None:
    path = str(tmp_path / "hangs")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(8)
        resolver = DockerResolver(path)
        until(resolver, f"the Docker Engine at {path} cannot be queried: it does not answer")
        resolver.close()
    assert poll(lambda: threads() == [])


def test_whoever_waits_for_an_engine_that_hangs_waits_no_longer_than_until_it_is_closed(tmp_path: Path) -> None:
    said: list[str] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "hangs"))
        listening.listen(8)
        resolver = DockerResolver(str(tmp_path / "hangs"), patience=60.0)
        waiting = threading.Thread(target=lambda: said.append(answer(resolver)))
        waiting.start()
        assert poll(lambda: bool(select.select([listening], [], [], 0)[0]))
        resolver.close()
        waiting.join(20)
        assert said == ["this resolver is closed"]
    assert poll(lambda: threads() == [])


def test_what_the_engine_says_after_the_end_is_not_heard(
    fake: Fake, to_fake: DockerResolver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vethlib.agent")
    fake("gated")
    answer(to_fake)
    assert poll((tmp_path / "fake.sock.asked").exists)
    to_fake.close()
    before = list(caplog.messages)  # that it was asked before it listened, perhaps
    (tmp_path / "fake.sock.go").touch()
    assert poll(lambda: threads() == [])
    assert answer(to_fake).code == "closed"
    assert caplog.messages == before


def test_its_thread_stays_at_home_wherever_it_is_asked(
    home: ns.Netns, engine: Engine, resolver: DockerResolver
) -> None:
    """A thread would keep the namespace that it is in."""
    with ns.Netns.anonymous() as elsewhere, elsewhere.entered():
        answer(resolver)
        (thread,) = threads()
    until(resolver, NOT_RUNNING)
    assert os.stat(f"/proc/self/task/{thread.native_id}/ns/net").st_ino == ns.identity(home.fileno())[1]


def test_a_session_takes_it(engine: Engine, resolver: DockerResolver) -> None:
    container = engine.run("vnf", "vnf1")
    until(resolver, container.netns)
    with Session(resolver=resolver) as session:
        assert session.lookup("lo", "microservice:vnf1").name == "lo"
        assert session.identity("microservice:vnf1") == session.identity(container.netns)
