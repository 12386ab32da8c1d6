"""An ordinary user of the host: it squats on names, and is a client of the agent's sockets that no server wants.

``python -m tests.chaos.local_user UID LABEL PORT SECONDS SEED``
"""

from __future__ import annotations

import os
import random
import socket
import sys
import time
from pathlib import Path

from tests.chaos.attacking import repeat

__all__ = ["LocalUser"]

CROWD = 60


class LocalUser:
    """The attacks of one user on the agent with a label, whose metrics are at a port of 127.0.0.1."""

    def __init__(self, label: str, port: int) -> None:
        self._port = port
        self._names = [f"\0vethlib/{kind}/{label}" for kind in ("agent", "try")]
        self._run = Path("/run/vethlib")
        self._label = label
        self._squatting = [self._squat(name) for name in self._names]

    def _squat(self, name: str) -> socket.socket:
        squatter = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            squatter.bind(name)
            squatter.listen(0)
        except OSError:
            pass
        return squatter

    def connect_to_names(self, _choose: random.Random) -> None:
        for name in self._names:
            for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
                for _ in range(20):
                    with socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK) as client:
                        client.connect_ex(name)
                        client.send(b"keep") if client.connect_ex(name) == 0 else None

    def sit_idle(self, choose: random.Random) -> None:
        clients = [self._client() for _ in range(CROWD)]
        time.sleep(choose.random() / 2)
        for client in clients:
            client.close()

    def speak_oddly(self, choose: random.Random) -> None:
        said = [
            b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text;version=1.a\r\n\r\n",
            b"GET /metrics HTTP/1.1\r\nAccept: " + b"text/plain;q=" * 500 + b"\r\n\r\n",
            b"GET " + b"/x" * 50_000,
            b"\x16\x03\x01\x02\x00" * 100,
            b"POST /healthz HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
            b"GET\r\n\r\n",
            b"\r\n" * 1000,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ]
        for _ in range(30):
            with self._client() as client:
                client.setblocking(True)
                client.settimeout(0.2)
                client.sendall(choose.choice(said))

    def read_slowly(self, _choose: random.Random) -> None:
        clients = [self._client() for _ in range(5)]
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            client.settimeout(0.2)
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        time.sleep(0.3)
        for client in clients:
            client.close()

    def write_slowly(self, _choose: random.Random) -> None:
        with self._client() as client:
            client.settimeout(0.2)
            for byte in b"GET /healthz HT":
                client.send(bytes([byte]))
                time.sleep(0.02)

    def plant(self, _choose: random.Random) -> None:
        for path in (self._run, self._run / self._label, self._run / self._label / "status", Path("/run/netns")):
            for name in ("planted", "wicked0.json", ".new"):
                try:
                    (path / name).symlink_to("/etc/passwd")
                except OSError:
                    continue
                raise AssertionError(f"an ordinary user may write to {path}")

    def _client(self) -> socket.socket:
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        client.connect_ex(("127.0.0.1", self._port))
        return client


def _main(uid: str, label: str, port: str, seconds: str, seed: str) -> None:
    os.setgroups([])
    os.setgid(int(uid))
    os.setuid(int(uid))
    user = LocalUser(label, int(port))
    print("squatting", flush=True)
    attacks = [user.connect_to_names, user.sit_idle, user.speak_oddly, user.read_slowly, user.write_slowly, user.plant]
    repeat(attacks, float(seconds), int(seed))


if __name__ == "__main__":
    _main(*sys.argv[1:])
