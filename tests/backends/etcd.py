"""Real etcd servers on the loopback, with etcdctl or HTTP as a witness and writer independent of vethlib."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.backends.ports import free_port
from tests.programs import freeze

__all__ = ["ROOT", "Cluster", "Etcd", "Tls", "missing"]

ROOT = "root", "t0p/s:cr@t"  # may do everything, if authentication is enabled
_SPEED = ("--unsafe-no-fsync", "--heartbeat-interval", "10", "--election-timeout", "100", "--bcrypt-cost", "4")
_UP = 30.0  # seconds


def missing() -> str:
    """Why there can be no server, or ""."""
    absent = [program for program in ("etcd", "etcdctl") if shutil.which(program) is None]
    return f"{' and '.join(absent)} not installed: apt-get install etcd-server etcd-client" if absent else ""


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificate files: of a server, which asks clients for certificates if `asks` is set, and of such a client."""

    cacert: Path
    server_cert: Path
    server_key: Path
    cert: Path
    key: Path
    asks: bool = False
    name: str = "127.0.0.1"  # that the server's certificate is for

    @property
    def of_server(self) -> tuple[str, ...]:
        options = ["--cert-file", self.server_cert, "--key-file", self.server_key]
        if self.asks:
            options += ["--client-cert-auth", "--trusted-ca-file", self.cacert]
        return tuple(map(str, options))

    @property
    def of_client(self) -> tuple[str, ...]:
        options = ["--cacert", self.cacert, *(("--cert", self.cert, "--key", self.key) if self.asks else ())]
        if self.name != "127.0.0.1":
            options.append("--insecure-skip-tls-verify")
        return tuple(map(str, options))

    @property
    def query(self) -> str:
        """The part of a URL for it."""
        return f"?cacert={self.cacert}" + (f"&cert={self.cert}&key={self.key}" if self.asks else "")


class Etcd:
    """A server with its data in `directory`, and with the same ports for the whole run; :meth:`start` starts it."""

    def __init__(self, directory: Path, *options: str, tls: Tls | None = None, name: str = "alone") -> None:
        self.name = name
        self.data = directory / f"{name}.etcd"
        self.tls = tls
        self.address = "127.0.0.1", free_port()
        self.peer_url = f"http://127.0.0.1:{free_port()}"
        self._health = "127.0.0.1", free_port()
        self._log = directory / f"{name}.log"
        self._options = options
        self._cluster: tuple[str, ...] = ("--initial-cluster", f"{name}={self.peer_url}")
        self._user: tuple[str, str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._begun_at = 0  # of the log
        self._paused = False

    # --- the process

    def start(self, *options: str) -> None:
        """Start it, and wait until it serves. `options` are for this start only."""
        self.begin(*options)
        self.wait()

    def begin(self, *options: str) -> None:
        """Start it."""
        assert self._process is None
        client_url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.address[1]}"
        command = ["setpriv", "--pdeathsig", "KILL", "etcd", "--name", self.name, "--data-dir", str(self.data), *_SPEED]
        command += ["--listen-client-urls", client_url, "--advertise-client-urls", client_url]
        command += ["--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url, *self._cluster]
        command += ["--listen-metrics-urls", "http://{}:{}".format(*self._health)]
        command += [*(self.tls.of_server if self.tls else ()), *self._options, *options]
        with self._log.open("ab") as log:
            self._begun_at = log.tell()
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def wait(self, *, alone: bool = False) -> None:
        """Wait until it serves; if `alone`, only until it would serve with enough other members."""
        deadline = time.monotonic() + _UP
        while self._health_told() not in ((200, 503) if alone else (200,)):
            assert self._process is not None
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                told = self._log.read_bytes()[self._begun_at :].decode(errors="replace").splitlines()
                shown = "\n".join(told if len(told) < 30 else [*told[:3], "…", *told[-26:]])
                raise AssertionError(f"etcd {'ended' if ended else f'does not serve after {_UP:g} s'}:\n{shown}")
            time.sleep(0.005)

    def _health_told(self) -> int:
        """Return the HTTP status of its health check; 0 for no answer."""
        # While there is no leader, the answer is delayed by up to a second, so it is better to ask again.
        connection = http.client.HTTPConnection(*self._health, timeout=0.25)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    @property
    def runs(self) -> bool:
        return self._process is not None and not self._paused

    def kill(self) -> None:
        """End it as a crash does; do nothing if it is not running."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it as its service manager does."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        process, self._process, self._paused = self._process, None, False
        if process is not None:
            process.send_signal(number)
            try:
                process.wait(_UP)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise

    def restart(self) -> None:
        """Kill it, and start it on the same data."""
        self.kill()
        self.start()

    def wipe(self) -> None:
        """Kill it, and delete its data."""
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)
        self._user = None

    def close(self) -> None:
        """Kill it, and keep only its log: an empty etcd takes 128 MB of disk space, and there are many tests."""
        self.wipe()
        self.data.with_suffix(".backup").unlink(missing_ok=True)

    def pause(self) -> None:
        """Stop it, while the kernel continues to accept connections for it."""
        assert self._process is not None
        freeze(self._process.pid)
        self._paused = True

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self._paused = False

    # --- how it is reached

    @property
    def endpoint(self) -> str:
        return "{}:{}".format(*self.address)

    @property
    def url(self) -> str:
        """For a store, if nobody has to prove who he is."""
        return f"etcd://{self.endpoint}{self.tls.query if self.tls else ''}"

    def ctl(self, *args: str, stdin: str | bytes = "") -> str:
        """Return the output of etcdctl, run as root with authentication. Raises AssertionError with its errors."""
        command = ["etcdctl", "--endpoints", self.endpoint, *(self.tls.of_client if self.tls else ())]
        env = {"PATH": os.environ["PATH"], "ETCDCTL_API": "3"}
        if self._user is not None:
            command += ["--user", self._user[0], "--password", self._user[1]]
        given = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run([*command, *args], input=given, capture_output=True, env=env, check=False, timeout=30)
        assert done.returncode == 0, f"etcdctl {' '.join(args)}: {done.stderr.decode(errors='replace')}"
        return done.stdout.decode()

    def _ask(self, what: str, **question: str) -> Any:
        """Return the answer of its HTTP gateway, because starting etcdctl takes 40 ms of processor time.

        None if it is better to use etcdctl, which can authenticate, waits, and explains errors.
        """
        if self.tls is not None or self._user is not None:
            return None
        connection = http.client.HTTPConnection(*self.address, timeout=_UP)
        try:
            connection.request("POST", f"/v3/kv/{what}", json.dumps(question))
            answer = connection.getresponse()
            told = answer.read()
        except OSError:
            return None
        finally:
            connection.close()
        return json.loads(told) if answer.status == 200 else None

    def put(self, key: str, value: str | bytes) -> None:
        if self._ask("put", key=_b64(key), value=_b64(value)) is None:
            self.ctl("put", "--", key, stdin=value)

    def delete(self, key: str) -> None:
        """Delete one key, which is there."""
        told = self._ask("deleterange", key=_b64(key))
        assert (self.ctl("del", "--", key) if told is None else told.get("deleted")) in ("1", "1\n")

    def delete_prefix(self, prefix: str) -> int:
        told = self._ask("deleterange", **_beginning_with(prefix))
        return int(self.ctl("del", "--prefix", "--", prefix) if told is None else told.get("deleted", 0))

    def values(self, prefix: str) -> dict[bytes, bytes]:
        """Return the values of the keys with this prefix."""
        told = self._ask("range", **_beginning_with(prefix))
        if told is None:
            told = json.loads(self.ctl("get", "--prefix", "-w", "json", "--", prefix))
        return {base64.b64decode(one["key"]): base64.b64decode(one.get("value", "")) for one in told.get("kvs", ())}

    def txn(self, *operations: str) -> None:
        """Carry out these operations, in the syntax of etcdctl, in one transaction."""
        told = self.ctl("txn", stdin="\n" + "\n".join(operations) + "\n\n\n")
        assert told.startswith("SUCCESS"), told

    @property
    def status(self) -> dict[str, Any]:
        (found,) = json.loads(self.ctl("endpoint", "status", "-w", "json"))
        status = found["Status"]
        assert isinstance(status, dict)
        return status

    @property
    def revision(self) -> int:
        told = self._ask("range", key=_b64("any"))
        return int((self.status if told is None else told)["header"]["revision"])

    def compact(self) -> None:
        """Give up all history."""
        self.ctl("compaction", "--physical", "--", str(self.revision))

    def save(self) -> Path:
        """Save a backup of all data; return the file."""
        file = self.data.with_suffix(".backup")
        self.ctl("snapshot", "save", str(file))
        return file

    def restore(self, backup: Path) -> None:
        """Kill it, and restore its data from a backup."""
        self.wipe()
        where = ("--data-dir", str(self.data), "--name", self.name, *self._cluster)
        self.ctl("snapshot", "restore", str(backup), *where, "--initial-advertise-peer-urls", self.peer_url)

    def fill(
        self, values: Mapping[str, str | bytes] | Mapping[str, str] | Mapping[bytes, str], *, at_once: int = 100
    ) -> None:
        """Put many keys, in large transactions, through its HTTP gateway, because etcdctl takes 40 ms to start."""
        self.transact(
            ({"requestPut": {"key": _b64(key), "value": _b64(value)}} for key, value in values.items()), at_once
        )

    def empty(self, keys: Iterable[str | bytes], *, at_once: int = 100) -> None:
        """Delete many keys in the same way."""
        self.transact(({"requestDeleteRange": {"key": _b64(key)}} for key in keys), at_once)

    def transact(self, operations: Iterable[dict[str, Any]], at_once: int) -> None:
        assert self.tls is None
        assert self._user is None
        connection = http.client.HTTPConnection(*self.address, timeout=_UP)
        waiting = list(operations)
        try:
            for start in range(0, len(waiting), at_once):
                connection.request("POST", "/v3/kv/txn", json.dumps({"success": waiting[start : start + at_once]}))
                answer = connection.getresponse()
                said = answer.read()
                assert answer.status == 200, said
        finally:
            connection.close()

    # --- who may do what

    def enable_auth(self) -> None:
        """From now on only the user root may do everything (:data:`ROOT`)."""
        self.ctl("user", "add", "--interactive=false", ROOT[0], stdin=ROOT[1] + "\n")
        self.ctl("user", "grant-role", ROOT[0], "root")
        self.ctl("auth", "enable")
        self._user = ROOT

    def add_user(self, name: str, password: str, *prefixes: str, kind: str = "readwrite") -> None:
        """Add a user who may read and write the keys with these prefixes."""
        self.ctl("user", "add", "--interactive=false", name, stdin=password + "\n")
        self.ctl("role", "add", name)
        self.grant(name, *prefixes, kind=kind)
        self.ctl("user", "grant-role", name, name)

    def grant(self, name: str, *prefixes: str, kind: str = "readwrite") -> None:
        for prefix in prefixes:
            self.ctl("role", "grant-permission", name, "--prefix=true", kind, prefix)


def _b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode(errors="surrogateescape") if isinstance(text, str) else text).decode()


def _beginning_with(prefix: str) -> dict[str, str]:
    """Return the range of all keys with this prefix, or of all keys, in etcd's form: up to the first key after them."""
    if not prefix:
        return {"key": _b64(b"\0"), "range_end": _b64(b"\0")}
    *first, last = prefix.encode()
    return {"key": _b64(prefix), "range_end": _b64(bytes([*first, last + 1]))}


class Cluster:
    """Three servers that form one etcd. :meth:`start` starts them."""

    def __init__(self, directory: Path) -> None:
        # Without a pre-vote, a member that was isolated disturbs the others, which have elected a leader since.
        self.members = [Etcd(directory, "--pre-vote", name=name) for name in ("one", "two", "three")]
        all_of_them = ",".join(f"{member.name}={member.peer_url}" for member in self.members)
        for member in self.members:
            member._cluster = "--initial-cluster", all_of_them

    def start(self) -> None:
        """Start those that are not running, and wait until each serves, and all have the same leader."""
        begun = [member for member in self.members if member._process is None]
        for member in begun:
            # One after another: members that start at the same time wait a second for each other's answer.
            member.begin()
            member.wait(alone=True)
        for member in begun:
            member.wait()
        deadline = time.monotonic() + _UP
        while not self._agree():
            assert time.monotonic() < deadline, f"no leader that all follow after {_UP:g} s"

    def _agree(self) -> bool:
        leaders = {member.status.get("leader") for member in self.members if member.runs}
        return len(leaders) == 1 and None not in leaders

    def close(self) -> None:
        """End them all, and delete their data."""
        for member in self.members:
            member.close()

    @property
    def url(self) -> str:
        """For a store, with all of them."""
        return f"etcd://{','.join(member.endpoint for member in self.members)}"

    def leader(self) -> Etcd:
        """Return the leader among the running members; wait until there is one."""
        deadline = time.monotonic() + _UP
        while time.monotonic() < deadline:
            for member in self.members:
                if member.runs:
                    status = member.status
                    if status.get("leader") == status["header"]["member_id"]:
                        return member
            time.sleep(0.02)
        raise AssertionError(f"no leader after {_UP:g} s")

    def followers(self) -> list[Etcd]:
        leader = self.leader()
        return [member for member in self.members if member.runs and member is not leader]

    def move_leader(self) -> Etcd:
        """Make another member the leader, and return it."""
        before, after = self.leader(), self.followers()[0]
        before.ctl("move-leader", f"{after.status['header']['member_id']:x}")
        return after
