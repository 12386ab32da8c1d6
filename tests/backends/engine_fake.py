"""An engine that says what no real one does on demand. As a program: SOCKET [KIND], until it is killed.

Of kind `rootless` and `broken` it is what they say; `gated` tells of its containers once there is a file SOCKET.go, and
leaves one SOCKET.asked; `sick` has two, and refuses to say what the second is with the HTTP status that is in
SOCKET.status, while there is one, of which it leaves a file SOCKET.refused. It tells an event of either whenever there
is a file SOCKET.event, and removes that.
"""

from __future__ import annotations

import json
import socketserver
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

__all__: list[str] = []


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
            self._answer(200, [{"Id": _id(number)} for number in (1, 2)] if self.kind == "sick" else [])

    def _describe(self, number: int) -> None:
        if number == 2 and self._file("status").exists():
            self._file("refused").touch()
            self._answer(int(self._file("status").read_text()), {"message": "it is broken"})
            return
        state = {"Running": True, "Pid": number, "StartedAt": "2024-05-04T03:02:01Z"}
        config = {"Env": [f"MICROSERVICE_LABEL=vnf{number}"]}
        self._answer(200, {"Id": _id(number), "Name": f"/c{number}", "State": state, "Config": config})

    def _events(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        while True:
            time.sleep(0.005)
            if self._file("event").exists():
                self._file("event").unlink()
                for number in (1, 2):
                    text = json.dumps({"Type": "container", "Action": "update", "Actor": {"ID": _id(number)}})
                    self.wfile.write(f"{len(text):x}\r\n{text}\r\n".encode())

    def _file(self, suffix: str) -> Path:
        return Path(f"{self.socket}.{suffix}")

    def _answer(self, status: int, body: Any) -> None:
        text = json.dumps(body).encode()
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
