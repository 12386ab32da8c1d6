"""An engine that gives answers that no real engine gives on demand. As a program: SOCKET [KIND], until it is killed.

Of kind `rootless` and `broken` it is what they say; `gated` tells of its containers once there is a file SOCKET.go, and
leaves one SOCKET.asked. `sick` has two, and what it is asked about the second it answers as the file SOCKET.status says
while there is one: with an HTTP status, with "gone" (it is no more), "stopped", "garbage" (no JSON), "endless" (3 MiB),
"strange" (JSON of no container), or "late" (not while the file is there). It notes each such answer in SOCKET.refused.
`crowded` has twenty such containers, 2 to 21, one that is slow, 22, and last the first; `few` has only two of the
twenty.

What is in a file SOCKET.event is told as an event, or several, one a line; the file is removed then. A line "cut" ends
the connection.
"""

from __future__ import annotations

import json
import select
import socketserver
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

__all__: list[str] = []


SLOW = 22
_RUNNING = {"sick": (1, 2), "few": (2, 3, SLOW, 1), "crowded": (*range(2, SLOW + 1), 1)}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    kind = ""
    socket = ""

    def address_string(self) -> str:
        return ""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.endswith("/version"):
            self._answer(200, {"ApiVersion": "1.41", "Version": "fake"})
        elif path.endswith("/_ping"):
            self._send(200, b"OK")
        elif path.endswith("/info"):
            self._answer(200, {"SecurityOptions": ["name=seccomp,profile=default", f"name={self.kind or 'none'}"]})
        elif path.endswith("/containers/json"):
            self._list()
        elif path.endswith("/json"):
            self._describe(int(path.split("/")[-2][:12]))
        elif path.endswith("/events"):
            self._events()
        else:
            self._answer(404, {"message": "no such thing"})

    def _list(self) -> None:
        if self.kind == "gated":
            self._file("asked").touch()
            while not self._file("go").exists():
                time.sleep(0.005)
        if self.kind == "broken":
            self._answer(500, {"message": "the disk is full"})
        else:
            self._answer(200, [{"Id": _id(number)} for number in _RUNNING.get(self.kind, ())])

    def _describe(self, number: int) -> None:
        with self._file("looks").open("a") as looks:
            looks.write(f"{number}\n")
        if number == SLOW:
            time.sleep(0.4)
        how = self._status() if 1 < number < SLOW else ""
        if how:
            self._file("refused").touch()
        state = {"Running": how != "stopped", "Pid": number, "StartedAt": "2024-05-04T03:02:01Z"}
        config = {"Env": [f"MICROSERVICE_LABEL=vnf{number}"]}
        described = {"Id": _id(number), "Name": f"/c{number}", "State": state, "Config": config}
        if how.isdecimal():
            self._answer(int(how), {"message": "it is broken"})
        elif how == "gone":
            self._answer(404, {"message": "no such container"})
        elif how == "garbage":
            self._send(200, b"<html>")
        elif how == "endless":
            self._send(200, b"{" + b" " * (3 << 20))
        elif how == "strange":
            self._answer(200, described | {"State": {"Running": True, "Pid": "12", "StartedAt": None}})
        else:
            while how == self._status() == "late":
                time.sleep(0.005)
            self._answer(200, described)

    def _status(self) -> str:
        try:
            return self._file("status").read_text()
        except FileNotFoundError:
            return ""

    def _events(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        while not select.select([self.connection], [], [], 0.005)[0]:  # until the client goes
            try:
                lines = self._file("event").read_text().splitlines()
                self._file("event").unlink()
            except FileNotFoundError:
                continue
            for line in lines:
                if line == "cut":
                    self.close_connection = True
                    return
                if self._is_asked_for(json.loads(line)):
                    self.wfile.write(f"{len(line):x}\r\n{line}\r\n".encode())

    def _is_asked_for(self, event: Any) -> bool:
        filters = json.loads(parse_qs(urlsplit(self.path).query).get("filters", ["{}"])[0])
        return "event" not in filters or (isinstance(event, dict) and event.get("Action") in filters["event"])

    def _file(self, suffix: str) -> Path:
        return Path(f"{self.socket}.{suffix}")

    def _answer(self, status: int, body: Any) -> None:
        self._send(status, json.dumps(body).encode())

    def _send(self, status: int, text: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def _id(number: int) -> str:
    return f"{number:012}".ljust(64, "0")


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


if __name__ == "__main__":
    _Handler.socket, *kind = sys.argv[1:]
    _Handler.kind = "".join(kind)
    _Server(_Handler.socket, _Handler).serve_forever()
