"""The whole test run is in namespaces of its own (netns_isolate): it neither sees nor touches the host's network, nor
what agents of the host keep in /run/vethlib. Nor does it see what the shell that starts it has set for vethctl."""

from __future__ import annotations

import gc
import os
import platform
import re
import signal
import subprocess
from collections.abc import Generator

import pytest

from tests import needs, warm
from tests.deadline import deadline

pytest_plugins = ["pytester"]

PRIVILEGED = os.geteuid() == 0

# Of an operator's shell, of a service manager, and of a worker of xdist, which a pytest within a test is not; and those
# that the tests and benchmarks themselves ask for.
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
        # What is under coverage are the workers, which have begun with it before this; not what their tests start.
        os.environ.pop("COVERAGE_PROCESS_START", None)


def _as_a_shell_starts_a_program() -> None:
    """Undo what whoever starts the tests has left behind: what the tests start would inherit it.

    SIGINT is ignored in the background of a script, SIGHUP under nohup. The latter still does not end us, but what has
    a handler here is at its default in a program that is started.
    """
    os.umask(0o022)
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # which Python ignores, and restores
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
    """Put files with slow tests first: workers that share the files are through at about the same time then."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(tryfirst=True)
def pytest_collection() -> None:
    """Look for no garbage while modules and tests are collected, which are none: a fifth of the time went there."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave what the collection has made out of every later collection of garbage, of which many tests ask for two."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Have the programs of workers, which run many tests, start in less time."""
    if hasattr(session.config, "workerinput"):
        session.config.add_cleanup(warm.install().close)


@pytest.fixture(autouse=True)
def _no_file_takes_long_to_read(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores of files leave one alone for a while that took 50 ms to read, which on a busy machine is any file."""
    if hasattr(request.module, "DirectoryStore"):
        monkeypatch.setattr("vethlib.agent.stores.files.longreads._LONG", 60.0)
        monkeypatch.setattr("vethlib.agent.stores.files.directory._SLICE", 60.0)


EXCUSED = pytest.StashKey[bool]()
"""Whether a test is skipped because this machine does not have what it needs."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if lack := needs.lack(item.iter_markers()):
        item.stash[EXCUSED] = lack.excused
        pytest.skip(lack.reason)


@pytest.hookimpl(wrapper=True, tryfirst=True, specname="pytest_runtest_setup")
def pytest_runtest_setup_in_time(item: pytest.Item) -> Generator[None, object, object]:
    with deadline(f"the setup of {item.name}"):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    with deadline(item.name):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    with deadline(f"the teardown of {item.name}"):
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
    """In CI a missing component is a failure: there is nobody to read why a test, or a whole module, was skipped.

    A kernel is what it is: a test that needs a newer one, or a module that the machine does not have, may be skipped.
    """
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which counts as a failure in CI: {report.longrepr}"
