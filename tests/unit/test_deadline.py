"""The deadline of every test ends endless waits, including waits that begin when the first is ended."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests import deadline as module
from tests.deadline import deadline
from tests.witness import poll


def waits_for_an_event() -> None:
    threading.Event().wait()


def waits_for_a_line() -> None:
    with subprocess.Popen(["sleep", "60"], stdout=subprocess.PIPE) as process:
        STARTED.append(process)
        assert process.stdout is not None
        process.stdout.readline()


STARTED: list[subprocess.Popen[bytes]] = []


@pytest.fixture
def _ended() -> Iterator[None]:
    yield
    for process in STARTED:
        process.kill()
        process.wait()
    STARTED.clear()


@pytest.mark.usefixtures("_ended")
@pytest.mark.parametrize("waits", [waits_for_an_event, waits_for_a_line])
def test_what_waits_for_ever_fails_and_names_the_test(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], waits: Callable[[], None]
) -> None:
    monkeypatch.setattr(module, "_AGAIN", 0.05)
    with pytest.raises(pytest.fail.Exception, match="test_it"), deadline("test_it", 0.05):
        waits()
    assert waits.__name__ in capfd.readouterr().err  # the stack of the thread that waited


def test_what_ends_in_time_has_no_alarm_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with deadline("test_it", 0.05):
        pass
    assert not threading.Event().wait(0.2)


def test_a_machine_that_stands_still_uses_up_no_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK", 0.05)
    with deadline("test_it", 60):
        ahead = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: ahead() + 600)
        assert not threading.Event().wait(0.3)


def test_the_handler_of_a_fixture_is_there_in_its_test_and_takes_the_deadline_away() -> None:
    heard: list[int] = []
    with deadline("the setup of test_it", 60):
        before = signal.signal(signal.SIGALRM, lambda number, _: heard.append(number))
    with deadline("test_it", 60):
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert poll(lambda: heard != [])
    with deadline("the teardown of test_it", 60):
        signal.signal(signal.SIGALRM, before)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def test_a_thread_other_than_the_main_one_has_none() -> None:
    left: list[bool] = []

    def run() -> None:
        with deadline("test_it", 0.05):
            left.append(threading.Event().wait(0.2))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert left == [False]
