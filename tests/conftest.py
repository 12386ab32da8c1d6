"""The whole test run is in its own namespaces (netns_isolate).

It neither sees nor touches the host's network or what the host's agents keep in /run/vethlib. Nor does it see vethctl's
environment variables of the shell that starts it.
"""

from __future__ import annotations

import gc
import os
import pkgutil
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import pytest

from tests import needs, nursery
from tests.deadline import deadline
from vethlib import _nl, ifindex, ns, session

pytest_plugins = ["pytester"]

PRIVILEGED = os.geteuid() == 0

# Variables of an operator's shell, of a service manager, and of a worker of xdist (a pytest within a test is no
# worker), and those that the tests and benchmarks themselves read.
FOREIGN = re.compile(
    r"VETHLIB_.*|MICROSERVICE_LABEL|NOTIFY_SOCKET|WATCHDOG_.*|XDG_RUNTIME_DIR|DOCKER_.*|NO_COLOR|PYTEST_XDIST_.*"
    r"|PYTHONUNBUFFERED"
)
OURS = re.compile(r"VETHLIB_(SOAK|CHAOS|STRESS_SECONDS|BENCH.*)")


def pytest_configure(config: pytest.Config) -> None:
    _as_a_shell_starts_a_program()
    for name in list(os.environ):
        if FOREIGN.fullmatch(name) and not OURS.fullmatch(name):
            del os.environ[name]
    if hasattr(config, "workerinput"):
        # Coverage measures the workers, in which it has started before this, but not the programs that their tests
        # start.
        os.environ.pop("COVERAGE_PROCESS_START", None)


def _as_a_shell_starts_a_program() -> None:
    """Undo the signal settings of the shell that starts the tests: programs that the tests start would inherit them.

    SIGINT is ignored in the background of a script, SIGHUP under nohup. SIGHUP still does not end us, but signals with
    a handler here have their default action in programs that are started.
    """
    os.umask(0o022)
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # Python ignores and restores these two
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL if number != signal.SIGHUP else lambda *_: None)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> list[str]:
    who = "root" if PRIVILEGED else "an ordinary user, in a user namespace"
    backends = ", ".join(f"{name} {_version(program)}" for name, program in (("etcd", "etcd"), ("engine", "dockerd")))
    return [f"kernel {platform.release()}, as {who}", backends]


def _version(program: str) -> str:
    try:
        told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return "missing"
    found = re.search(r"[vV]ersion:? v?([^\s,]+)", told)
    return found[1] if found else "of an unknown version"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first, so that workers that share the files finish at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


_tracer: Any = None
"""What notes for coverage which lines are executed, if this process is measured."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection() -> None:
    """Disable what makes collecting tests slow: garbage collection, which finds nothing, and coverage."""
    global _tracer
    gc.disable()
    tracer = sys.gettrace()
    if type(tracer).__module__.partition(".")[0] == "coverage":
        for package in _nl, ns, session, ifindex:
            for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
                import_module(module.name)
        _tracer = tracer
        sys.settrace(None)


@contextmanager
def _measured() -> Iterator[None]:
    """Let coverage see what is executed here; it needs none of what pytest does in between."""
    if _tracer is None:
        yield
        return
    sys.settrace(_tracer)
    try:
        yield
    finally:
        sys.settrace(None)


def pytest_collection_finish() -> None:
    """Exempt the collected tests from garbage collection, which many tests request twice."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Make the programs that workers start, in their many tests, start faster."""
    if hasattr(session.config, "workerinput"):
        session.config.add_cleanup(nursery.install().close)


@pytest.fixture(autouse=True)
def _no_file_takes_long_to_read(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the limit for slow files: a store skips a file that took 50 ms to read, and on a busy machine any may."""
    if hasattr(request.module, "DirectoryStore"):
        monkeypatch.setattr("vethlib.agent.stores.files.longreads._LONG", 60.0)
        monkeypatch.setattr("vethlib.agent.stores.files.agenda._SLICE", 60.0)


EXCUSED = pytest.StashKey[bool]()
"""Whether a test is skipped because this machine does not have what it needs."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if lack := needs.lack(item.iter_markers()):
        item.stash[EXCUSED] = lack.excused
        pytest.skip(lack.reason)


@pytest.hookimpl(wrapper=True, tryfirst=True, specname="pytest_runtest_setup")
def pytest_runtest_setup_in_time(item: pytest.Item) -> Generator[None, object, object]:
    with deadline(f"the setup of {item.name}"), _measured():
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    with deadline(item.name), _measured():
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    with deadline(f"the teardown of {item.name}"), _measured():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not item.stash.get(EXCUSED, False):
        _fail_if_skipped_in_ci(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped_in_ci(report)
    return report


def _fail_if_skipped_in_ci(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In CI, a missing component is a failure, because nobody reads why a test, or a whole module, was skipped.

    The kernel is given: a test that needs a newer kernel, or a module that the machine lacks, may be skipped.
    """
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which counts as a failure in CI: {report.longrepr}"
