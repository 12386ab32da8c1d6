"""The core waits, reads and locks with the original functions of the standard library, whatever replaces them."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import vethlib
from tests.starting import wait_interrupted
from vethlib import _primitives, _threads
from vethlib._primitives import do_in_threads, start_thread

ROOM = Path(vethlib.__file__).parent


def refuse_threads(*_: object) -> None:
    raise RuntimeError("can't start new thread")


def test_the_clock_is_none_that_can_be_found_by_identity() -> None:
    assert _primitives.time.monotonic is not time.monotonic
    assert abs(_primitives.time.monotonic() - time.monotonic()) < 1


def test_programs_are_started_by_nothing_that_others_replace() -> None:
    """ruff's banned-api (pyproject.toml) lists the other functions that may be replaced; Popen is also a type."""
    core = {path: path.read_text() for path in ROOM.rglob("*.py") if ROOM / "cli" not in path.parents}
    code = {path.name: re.sub(r'""".*?"""', "", text, flags=re.DOTALL) for path, text in core.items()}
    assert [name for name, text in code.items() if "subprocess.Popen(" in text] == []


def test_no_system_call_is_made_by_a_function_that_some_pythons_lack() -> None:
    lacking = re.compile(r"\b(os|signal)\.(pidfd_open|pidfd_send_signal|memfd_create|MFD_\w+)")
    found = {str(path.relative_to(ROOM)) for path in ROOM.rglob("*.py") if lacking.search(path.read_text())}
    assert found == {"topology/programs/supervisor.py"}  # a program that imports nothing of vethlib, and checks first


def test_the_usual_subprocess_is_used_while_it_is_intact(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _primitives.real_subprocess() is subprocess
    monkeypatch.setattr(subprocess, "_time", lambda: 0.0)
    other = _primitives.real_subprocess()
    assert other is not subprocess
    assert other.TimeoutExpired is subprocess.TimeoutExpired
    with pytest.raises(subprocess.TimeoutExpired):
        other.run(["sleep", "60"], timeout=0.05)


def test_threads_share_the_items_and_each_is_called_once() -> None:
    seen: list[int] = []
    do_in_threads(seen.append, range(100), 8, "counting")
    assert sorted(seen) == list(range(100))


def test_the_first_error_is_raised_when_all_have_been_called() -> None:
    seen: list[int] = []

    def call(item: int) -> None:
        seen.append(item)
        if item % 2:
            raise ValueError(item)

    with pytest.raises(ValueError, match="[13]"):
        do_in_threads(call, range(4), 2, "failing")
    assert sorted(seen) == [0, 1, 2, 3]


def test_without_threads_the_caller_does_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", refuse_threads)
    seen: list[int] = []
    do_in_threads(seen.append, range(5), 2, "alone")
    assert sorted(seen) == [0, 1, 2, 3, 4]


def test_without_threads_an_interrupt_ends_it_and_comes_before_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", refuse_threads)
    seen: list[int] = []

    def call(item: int) -> None:
        seen.append(item)
        raise KeyboardInterrupt if item == 1 else ValueError(item)

    with pytest.raises(KeyboardInterrupt):
        do_in_threads(call, range(5), 2, "alone")
    assert seen == [0, 1]


def test_an_interrupt_waits_for_what_has_begun_and_begins_nothing_more() -> None:
    begun, may_end = threading.Semaphore(0), threading.Event()
    seen: list[int] = []

    def call(item: int) -> None:
        begun.release()
        assert may_end.wait(30)
        time.sleep(0.01)  # 5 s for all, in which the interrupt has long come
        seen.append(item)

    def interrupt() -> None:
        assert begun.acquire(timeout=30)
        assert begun.acquire(timeout=30)
        while not may_end.wait(0.05):  # one that comes right before a wait does not end that
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def interrupted(*_: object) -> None:
        if not may_end.is_set():
            may_end.set()
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupted)
    try:
        start_thread(interrupt, "interrupting")
        with pytest.raises(KeyboardInterrupt):
            do_in_threads(call, range(1000), 2, "working")
    finally:
        signal.signal(signal.SIGUSR1, before)
    done = len(seen)
    assert 2 <= done < 1000
    assert not any(one.name == "working" for one in threading.enumerate())


STARTS: dict[str, Callable[[], object]] = {
    "an errand": lambda: _threads.start_kernel_thread(list, "test", "testing"),
    "a thread of the library": lambda: _threads.start(threading.Thread(target=list, daemon=True), "testing"),
    "one of several": lambda: do_in_threads(str, range(3), 2, "testing"),
    "while another interruption is handled": lambda: handling(
        KeyboardInterrupt(), lambda: _threads.start_kernel_thread(list, "test", "testing")
    ),
}


def handling(error: BaseException, function: Callable[[], object]) -> None:
    try:
        raise error
    except BaseException:
        function()


@pytest.mark.parametrize("how", STARTS)
def test_an_interruption_while_a_thread_starts_is_no_refusal(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    with monkeypatch.context() as patches:
        patches.setattr(threading.Event, "wait", wait_interrupted)
        with pytest.raises(KeyboardInterrupt):
            STARTS[how]()


def test_a_refusal_while_an_interruption_is_handled_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", refuse_threads)
    with pytest.raises(_threads.ThreadRefused):
        handling(KeyboardInterrupt(), lambda: _threads.start_kernel_thread(list, "test", "testing"))
