"""A fleet on one machine: etcd, a container engine, an agent, and three containers that the agent wires together.

``make fleet-demo`` runs it from a checkout, as root. Everything is private and ends with it: it has its own network and
mount namespaces, and its own engine, with a single image of busybox.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from vethlib import LinkNotFound, NetnsNotFound, Session, VethError, ns

HERE = Path(__file__).parent
ENGINE = HERE.parents[1] / "scripts" / "engine"
IMAGE = "vethlib-test:latest"
SERVICES = ("web", "api", "db")
PATIENCE = 30.0  # seconds
ENDS_WITHIN = 10.0  # seconds for etcd and the agent to end
TAIL = 5  # lines of a log
FAINT, BOLD, GREEN, PLAIN = ("\033[2m", "\033[1m", "\033[32m", "\033[0m") if sys.stdout.isatty() else ("",) * 4


class _Interrupted(BaseException):
    """A signal requests the end; its number."""


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_received: list[int] = []


def _note(number: int, _frame: FrameType | None) -> None:
    """Only note a signal: an exception could be raised anywhere, even where a process was started but is not known."""
    _received.append(number)


def _go_on() -> None:
    """Raise _Interrupted if a signal was received: called wherever everything that was started is known."""
    if _received:
        raise _Interrupted(_received[0])


def _ignore_signals() -> None:
    """Ignore signals from here on, so that neither this clean-up nor the programs that it runs are interrupted."""
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)


@dataclass(frozen=True, slots=True)
class _Running:
    """A process of the demo, and its log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


def main() -> int:
    """Run the demo; return 1 if packets were lost or something failed, 2 if it cannot run, 128 + N after signal N."""
    if reason := _missing():
        print(f"fleet-demo: {reason}", file=sys.stderr)
        return 2
    for each in _SIGNALS:
        signal.signal(each, _note)
    code = 0
    try:
        ns.isolate()
        with ExitStack() as stack:
            running: list[_Running] = []
            try:
                code = 1 if _play(stack, running) else 0
                _go_on()
            except (OSError, VethError) as error:  # including TimeoutError and refusals of the engine
                _go_on()  # a terminal that is gone, for example, has sent SIGHUP
                code = 1
                print(f"fleet-demo: {error}", file=sys.stderr)
                for process in running:
                    _show_log(process)
            finally:
                _ignore_signals()
    except (OSError, VethError) as error:
        print(f"fleet-demo: {error}", file=sys.stderr)
        return 1
    except _Interrupted as signalled:
        code = 128 + signalled.args[0]
    print(f"{FAINT}All of it was private, and nothing is left behind.{PLAIN}")
    return code


def _play(stack: ExitStack, running: list[_Running]) -> int:
    """Run everything, which `stack` undoes; return the number of lost packets."""
    directory = Path(tempfile.mkdtemp(prefix="vethlib-fleet-"))
    stack.callback(_remove, directory)
    port = _free_port()
    os.environ |= {"VETHLIB_STORE": f"etcd://127.0.0.1:{port}", "VETHLIB_LABEL": "host1"}
    print("Three containers are wired to each other and to the host, as configured in etcd: host — web — api — db.")
    print(f"{FAINT}export VETHLIB_STORE=etcd://127.0.0.1:{port} VETHLIB_LABEL=host1{PLAIN}\n", flush=True)
    _say("etcd", "starts, on loopback")
    _start_etcd(stack, running, directory, port)
    _say("engine", "starts, on its own socket")
    engine = _start_engine(stack, directory)
    containers = {name: _run(engine, name) for name in SERVICES}
    for name in SERVICES:
        _say("container", f"{name} runs with MICROSERVICE_LABEL={name}, as process {_pid(engine, name)}, no network")
    _say("agent", "starts")
    _start_agent(stack, running, directory)
    if code := _show("put", str(HERE / "fleet.json")):
        raise ChildProcessError(f"vethctl put has ended with code {code}")
    _wait("all is configured", lambda: _vethctl("status", shown=False) == 0, running)
    _show("status")
    lost = _talk(containers)
    before = _pid(engine, "api")
    _say("container", "api is restarted: its namespace ends, and with it two pairs")
    containers["api"].restart(timeout=0)
    took = _wait_for_links(pid := _pid(engine, "api"), running)
    _say(
        "agent",
        f"api is another process ({before} → {pid}), and was wired again {took * 1e3:.0f} ms after that was known",
    )
    _wait("all is configured", lambda: _vethctl("status", shown=False) == 0, running)
    lost += _talk(containers)
    _show("status")
    _say("end", "the agent, the containers, the engine and etcd are stopped")
    return lost


def _missing() -> str:
    if os.geteuid() != 0:
        return "a container engine needs root: run it as root, or see `make demo`, which needs none"
    absent = [program for program in ("etcd", "dockerd", "containerd", "busybox") if shutil.which(program) is None]
    return f"{', '.join(absent)} not installed: `make fleet-demo` does that" if absent else ""


def _start_etcd(stack: ExitStack, running: list[_Running], directory: Path, port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    command = ["etcd", "--data-dir", str(directory / "etcd"), "--unsafe-no-fsync", "--listen-client-urls", url]
    command += ["--advertise-client-urls", url, "--listen-peer-urls", f"http://127.0.0.1:{_free_port()}"]
    running.append(_start(stack, "etcd", command, directory))
    _wait("etcd serves", lambda: _answers(port), running)


def _start_engine(stack: ExitStack, directory: Path) -> Any:
    import docker  # the agent's extra: vethlib[docker]

    environment = os.environ | {"ENGINE_DIR": str(directory / "engine")}
    stack.callback(_end_engine, environment)
    up = _in_session([str(ENGINE), "up"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if up.returncode:
        raise ChildProcessError(f"the engine does not start: {up.stderr.strip()}")
    path = up.stdout.strip()
    os.environ["VETHLIB_DOCKER"] = f"unix://{path}"
    return stack.enter_context(closing(docker.DockerClient(f"unix://{path}")))


def _end_engine(environment: dict[str, str]) -> None:
    done = subprocess.run([ENGINE, "down"], env=environment, check=False, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        again = f"ENGINE_DIR={environment['ENGINE_DIR']} {ENGINE} down"
        raise ChildProcessError(f"the engine has not ended completely: {done.stderr.strip()}\nto try again: {again}")


def _start_agent(stack: ExitStack, running: list[_Running], directory: Path) -> None:
    command = [sys.executable, "-m", "vethlib", "agent", "--status-dir", str(directory / "status")]
    running.append(_start(stack, "agent", command, directory))


def _start(stack: ExitStack, name: str, command: list[str], directory: Path) -> _Running:
    """Start a process, in a session of its own, that is ended with the stack."""
    log = directory / f"{name}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True)
    stack.callback(_end, process)
    return _Running(name, process, log)


def _in_session(command: list[str], **how: Any) -> subprocess.CompletedProcess[Any]:
    """Run a program in a session of its own, so that ^C reaches this process only, which then waits for the program.

    A half-started engine could not be ended, and a Python program that starts would print a traceback.
    """
    return subprocess.run(command, check=False, start_new_session=True, **how)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(ENDS_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _show_log(process: _Running) -> None:
    print(f"the end of {process.log.name}:", file=sys.stderr)
    for line in process.log.read_text(errors="replace").splitlines()[-TAIL:]:
        print(f"  {line}", file=sys.stderr)


def _remove(directory: Path) -> None:
    """Remove the directory, unless the engine has not ended."""
    if not (directory / "engine").exists():
        shutil.rmtree(directory)


def _run(engine: Any, name: str) -> Any:
    _go_on()
    return engine.containers.run(
        IMAGE,
        name=name,
        environment={"MICROSERVICE_LABEL": name},
        network_mode="none",
        stop_signal="SIGKILL",
        detach=True,
    )


def _pid(engine: Any, name: str) -> int:
    return int(engine.api.inspect_container(name)["State"]["Pid"])


def _wait_for_links(pid: int, running: list[_Running]) -> float:
    """Return the seconds until both links of api exist, observed independently of the agent."""
    begin = time.monotonic()
    with Session() as session:
        _wait("api is wired again", lambda: all(_is_up(session, name, f"pid:{pid}") for name in ("web", "db")), running)
    return time.monotonic() - begin


def _is_up(session: Session, name: str, netns: str) -> bool:
    try:
        return session.lookup(name, netns=netns).operstate == "up"
    except (LinkNotFound, NetnsNotFound):
        return False


def _talk(containers: dict[str, Any]) -> int:
    """Send some pings along each pair, and return how many were lost."""
    lost = 0
    for name, target, address in (
        ("web", "host", "10.30.0.1"),
        ("web", "api", "10.30.1.2"),
        ("api", "db", "10.30.2.2"),
    ):
        code, output = containers[name].exec_run(["ping", "-c", "3", "-i", "0.1", "-W", "2", address])
        result = next((line for line in output.decode().splitlines() if "packets" in line), output.decode().strip())
        lost += code != 0
        _say("traffic", f"{name} → {target} ({address}): {result}", GREEN if code == 0 else BOLD)
    return lost


def _show(*args: str) -> int:
    """Run vethctl visibly, like an operator; return its exit code."""
    print(f"\n{BOLD}$ vethctl {' '.join(args).replace(f'{HERE.parents[1]}/', '')}{PLAIN}", flush=True)
    code = _vethctl(*args)
    _go_on()
    print(flush=True)
    return code


def _vethctl(*args: str, shown: bool = True) -> int:
    to = None if shown else subprocess.DEVNULL
    return _in_session([sys.executable, "-m", "vethlib", *args], stdout=to, stderr=to).returncode


def _wait(what: str, holds: Callable[[], bool], running: list[_Running]) -> None:
    """Wait until a condition `holds`, as long as the `running` processes do not end."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        _go_on()
        for needed in running:
            if (code := needed.process.poll()) is not None:
                raise ChildProcessError(f"{needed.name} has ended with code {code}, before this was true: {what}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {PATIENCE:g} s")
        time.sleep(0.002)


def _say(who: str, what: str, colour: str = "") -> None:
    _go_on()
    print(f"{FAINT}{who:>9}{PLAIN}  {colour}{what}{PLAIN if colour else ''}", flush=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
