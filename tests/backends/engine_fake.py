"""An engine that says what no real one does on demand. As a program: SOCKET [rootless | broken], until it is killed."""

from __future__ import annotations

import json
import socketserver
import sys
import time
from http.server import BaseHTTPRequestHandler
from typing import Any

__all__: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    kind = ""

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
            self._answer(500 if self.kind == "broken" else 200, {"message": "the disk is full"} if self.kind else [])
        elif path.endswith("/events"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.flush()
            time.sleep(60)
        else:
            self._answer(404, {"message": "no such thing"})

    def _answer(self, status: int, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


if __name__ == "__main__":
    _Handler.kind = "".join(sys.argv[2:])
    _Server(sys.argv[1], _Handler).serve_forever()
