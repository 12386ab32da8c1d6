"""A fleet on one machine: etcd, a container engine, an agent, and three containers that it wires together.

``make fleet-demo`` runs it from a checkout, as root. Everything is private to it, and ends with it: its network and its
mounts are namespaces of its own, and so is the engine, which has no images but one of busybox.
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
from pathlib import Path
from typing import Any

from vethlib import LinkNotFound, NetnsNotFound, Session, ns

HERE = Path(__file__).parent
ENGINE = HERE.parents[1] / "scripts" / "engine"
IMAGE = "vethlib-test:latest"
SERVICES = ("web", "api", "db")
PATIENCE = 30.0  # seconds
FAINT, BOLD, GREEN, PLAIN = ("\033[2m", "\033[1m", "\033[32m", "\033[0m") if sys.stdout.isatty() else ("",) * 4


def main() -> int:
    """Run it; 1 if any traffic was lost."""
    if reason := _missing():
        print(f"fleet-demo: {reason}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    ns.isolate()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vethlib-fleet-")))
        port = _free_port()
        os.environ |= {"VETHLIB_STORE": f"etcd://127.0.0.1:{port}", "VETHLIB_LABEL": "host1"}
        _say("etcd", "starts, on loopback")
        _start_etcd(stack, directory, port)
        _say("engine", "starts, on a socket of its own")
        engine = _start_engine(stack, directory)
        containers = {name: _run(engine, name) for name in SERVICES}
        for name in SERVICES:
            _say(
                "container", f"{name} runs with MICROSERVICE_LABEL={name}, as process {_pid(engine, name)}, no network"
            )
        _say("agent", "starts")
        _start_agent(stack, directory)
        _show("put", str(HERE / "fleet.json"))
        _wait("all is configured", lambda: _vethctl("status", shown=False) == 0)
        _show("status")
        lost = _talk(containers)
        before = _pid(engine, "api")
        _say("container", "api is restarted: its namespace ends, and with it two pairs")
        containers["api"].restart(timeout=0)
        took = _wait_for_links(pid := _pid(engine, "api"))
        _say(
            "agent",
            f"api is another process ({before} → {pid}), and was wired again {took * 1e3:.0f} ms after that was known",
        )
        _wait("all is configured", lambda: _vethctl("status", shown=False) == 0)
        lost += _talk(containers)
        _show("status")
        _say("end", "the agent, the containers, the engine and etcd are stopped")
    print(f"{FAINT}All of it was private, and nothing is left behind.{PLAIN}")
    return 1 if lost else 0


def _missing() -> str:
    if os.geteuid() != 0:
        return "a container engine needs root: run it as root, or see `make demo`, which needs none"
    absent = [program for program in ("etcd", "dockerd", "containerd", "busybox") if shutil.which(program) is None]
    return f"{', '.join(absent)} not installed: `make fleet-demo` does that" if absent else ""


def _start_etcd(stack: ExitStack, directory: Path, port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    command = ["etcd", "--data-dir", str(directory / "etcd"), "--unsafe-no-fsync", "--listen-client-urls", url]
    command += ["--advertise-client-urls", url, "--listen-peer-urls", f"http://127.0.0.1:{_free_port()}"]
    _start(stack, command, directory / "etcd.log")
    _wait("etcd serves", lambda: _answers(port))


def _start_engine(stack: ExitStack, directory: Path) -> Any:
    import docker  # the agent's extra: vethlib[docker]

    environment = os.environ | {"ENGINE_DIR": str(directory / "engine")}
    stack.callback(subprocess.run, [ENGINE, "down"], env=environment, check=False)
    found = subprocess.run([ENGINE, "up"], env=environment, check=False, capture_output=True, text=True)
    if found.returncode:
        raise SystemExit(f"fleet-demo: the engine does not start: {found.stderr.strip()}")
    path = found.stdout.strip()
    os.environ["VETHLIB_DOCKER"] = f"unix://{path}"
    return stack.enter_context(closing(docker.DockerClient(f"unix://{path}")))


def _start_agent(stack: ExitStack, directory: Path) -> None:
    command = [sys.executable, "-m", "vethlib", "agent", "--status-dir", str(directory / "status")]
    _start(stack, command, directory / "agent.log")


def _start(stack: ExitStack, command: list[str], log: Path) -> None:
    """Start a process that ends with us."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)


def _run(engine: Any, name: str) -> Any:
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


def _wait_for_links(pid: int) -> float:
    """Seconds until both links of api are there, looked for without any agent's help."""
    begin = time.monotonic()
    with Session() as session:
        _wait("api is wired again", lambda: all(_is_up(session, name, f"pid:{pid}") for name in ("web", "db")))
    return time.monotonic() - begin


def _is_up(session: Session, name: str, netns: str) -> bool:
    try:
        return session.lookup(name, netns=netns).operstate == "up"
    except (LinkNotFound, NetnsNotFound):
        return False


def _talk(containers: dict[str, Any]) -> int:
    """Send some pings along each pair, and say how many were lost."""
    lost = 0
    for name, target, address in (
        ("web", "host", "10.30.0.1"),
        ("web", "api", "10.30.1.2"),
        ("api", "db", "10.30.2.2"),
    ):
        code, said = containers[name].exec_run(["ping", "-c", "3", "-i", "0.1", "-W", "2", address])
        result = next((line for line in said.decode().splitlines() if "packets" in line), said.decode().strip())
        lost += code != 0
        _say("traffic", f"{name} → {target} ({address}): {result}", GREEN if code == 0 else BOLD)
    return lost


def _show(*args: str) -> None:
    """Run vethctl as an operator does, where all can see it."""
    print(f"\n{BOLD}$ vethctl {' '.join(args).replace(f'{HERE.parents[1]}/', '')}{PLAIN}", flush=True)
    _vethctl(*args)
    print(flush=True)


def _vethctl(*args: str, shown: bool = True) -> int:
    to = None if shown else subprocess.DEVNULL
    return subprocess.run([sys.executable, "-m", "vethlib", *args], stdout=to, stderr=to, check=False).returncode


def _wait(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not after {PATIENCE:g} s")
        time.sleep(0.002)


def _say(who: str, what: str, colour: str = "") -> None:
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
