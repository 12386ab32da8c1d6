"""Somebody who may write a few files of a store, and puts into them what no value should be.

``python -m tests.chaos.writer STORE SCRATCH VICTIM SECONDS SEED``: the files are wicked0.json …; what the references
in them lead to lies in SCRATCH.
"""

from __future__ import annotations

import json
import os
import random
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.chaos.attacking import repeat

__all__ = ["FILES", "Writer"]

FILES = 3

_PLAIN: dict[str, Any] = {"enabled": True, "veth": {"peer_if_name": "nobody"}}

_VALUES: list[Callable[[str, str], str]] = [
    # What is no JSON, or no interface.
    lambda _n, _v: "",
    lambda _n, _v: "{",
    lambda _n, _v: "[" * 200_000,
    lambda _n, _v: json.dumps([1] * 20_000),
    lambda _n, _v: '{"a":' * 20_000 + "1" + "}" * 20_000,
    lambda _n, _v: "9" * 100_000,
    lambda _n, _v: json.dumps({f"k{number}": number for number in range(20_000)}),
    # Numbers out of every range, and of other kinds.
    *(
        (lambda n, _v, wrong=wrong, field=field: '{"name":"' + n + '",' + field % wrong + "}")
        for field in ('"namespace":{"type":%s}', '"namespace":{"pid":%s}', '"mtu":%s', '"type":%s', '"num_queues":%s')
        for wrong in ("4294967296", "-1", "1e400", "NaN", "true", '"1"', "1" * 5000, "[]", "null", "0.5", "-0")
    ),
    # Text of all sorts.
    lambda n, _v: json.dumps({"name": n, "secret": "hunter2" * 1000}),
    lambda n, _v: json.dumps({"name": n, **_PLAIN, "description": "\ud800"}),
    lambda n, _v: json.dumps({"name": n, **_PLAIN, "namespace": {"type": 2, "name": "n\n\x1b[31mX"}}),
    lambda n, _v: json.dumps({"name": n, **_PLAIN, "namespace": {"type": 2, "name": "x" * 100_000}}),
    lambda n, _v: json.dumps({"name": n, **_PLAIN, "ip_addresses": [f"no address {i}" for i in range(20_000)]}),
    lambda n, _v: json.dumps(
        {"name": n, **_PLAIN, "ip_addresses": [f"10.0.{i // 250}.{i % 250}/32" for i in range(20_000)]}
    ),
    # Somebody else's names.
    lambda n, v: json.dumps({"name": v, **_PLAIN}),
    lambda n, v: json.dumps({"name": n, "host_if_name": v, "enabled": True, "veth": {"peer_if_name": v}}),
    lambda n, v: json.dumps([{"name": v, **_PLAIN}] * 100),
]


class Writer:
    """The attacks. `scratch` gets the files that namespace references lead to."""

    def __init__(self, store: Path, scratch: Path, victim: str) -> None:
        self._store = store
        self._victim = victim
        self._scratch = scratch
        os.symlink("loop", scratch / "loop")
        os.mkfifo(scratch / "fifo")
        (scratch / "plain").touch()
        self._socket = socket.socket(socket.AF_UNIX)
        directory = os.open(scratch, os.O_PATH | os.O_DIRECTORY)
        self._socket.bind(f"/proc/self/fd/{directory}/socket")  # however long the path is
        os.close(directory)

    def _name(self, choose: random.Random) -> str:
        return f"wicked{choose.randrange(FILES)}"

    def _put(self, name: str, text: str) -> None:
        (self._store / ".wicked").write_text(text, errors="surrogatepass")
        (self._store / ".wicked").rename(self._store / f"{name}.json")

    def put_a_value(self, choose: random.Random) -> None:
        name = self._name(choose)
        self._put(name, choose.choice(_VALUES)(name, self._victim))

    def put_a_reference(self, choose: random.Random) -> None:
        name = self._name(choose)
        leads = [*("loop", "fifo", "plain", "socket", "dangling", "loop/x"), "x" * 300, "../" * 2000]
        path = choose.choice(
            [*(f"{self._scratch}/{one}" for one in leads), "/dev/zero", "/dev/tty", "/proc/1/mem", "/"]
        )
        self._put(name, json.dumps({"name": name, **_PLAIN, "namespace": {"type": 3, "filepath": path}}))

    def put_no_file(self, choose: random.Random) -> None:
        path = self._store / f"{self._name(choose)}.json"
        path.unlink(missing_ok=True)
        how = choose.randrange(5)
        if how == 0:
            path.touch()
            os.truncate(path, 1 << 40)  # sparse: it takes no room
        elif how == 1:
            os.mkfifo(path)
        elif how == 2:
            path.symlink_to(
                choose.choice(["/dev/zero", f"{self._scratch}/loop", "/etc/shadow", f"{self._scratch}/fifo"])
            )
        elif how == 3:
            path.mkdir()
            path.rmdir()
        else:
            path.touch()

    def rewrite_in_a_hurry(self, choose: random.Random) -> None:
        name = self._name(choose)
        for number in range(300):
            self._put(name, json.dumps({"name": name, **_PLAIN, "mtu": 1280 + number}))

    def take_it_back(self, choose: random.Random) -> None:
        (self._store / f"{self._name(choose)}.json").unlink(missing_ok=True)


def _main(store: str, scratch: str, victim: str, seconds: str, seed: str) -> None:
    writer = Writer(Path(store), Path(scratch), victim)
    attacks = [writer.put_a_value] * 6 + [writer.put_a_reference] * 3 + [writer.put_no_file] * 2
    repeat([*attacks, writer.rewrite_in_a_hurry, writer.take_it_back], float(seconds), int(seed))


if __name__ == "__main__":
    _main(*sys.argv[1:])
