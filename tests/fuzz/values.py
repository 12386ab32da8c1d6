"""Readers of the values in a store, and of statuses that others may have written."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Final

from google.protobuf.message import DecodeError

from vethlib.agent.config.files import load
from vethlib.agent.config.jsontext import Undecodable
from vethlib.agent.config.northbound import Parsed, read, read_one, same
from vethlib.agent.config.writing import to_json
from vethlib.agent.stores.agentreport import read_report
from vethlib.agent.stores.etcd import etcd_pb2 as pb
from vethlib.agent.stores.etcd.mirror import Mirror
from vethlib.agent.stores.etcd.reading import prefix_of
from vethlib.agent.stores.files.contents import Contents
from vethlib.agent.stores.files.listtext import edited, read_elements
from vethlib.agent.stores.published import as_entry
from vethlib.follow.docker.containers import container

from . import mutation
from .engine import Target

__all__ = ["TARGETS"]

_LONGEST: Final = 1 << 16  # characters of all that is said of one value

_ONE: Final = json.dumps(
    {
        "name": "veth1",
        "type": 0,
        "enabled": True,
        "description": "one end",
        "phys_address": "02:00:00:00:00:01",
        "mtu": 1500,
        "num_queues": 2,
        "ipv6": True,
        "txqlen": 500,
        "gso_max_size": 8192,
        "altnames": ["uplink"],
        "master": "br0",
        "neighbours": [{"ip": "10.0.0.9", "mac": "02:00:00:00:00:09"}],
        "offload": False,
        "routes": [{"dst": "default", "via": "10.0.0.2", "metric": 7}],
        "sysctls": {"rp_filter": "0", "ipv6.forwarding": 1},
        "host_if_name": "eth0",
        "ip_addresses": ["10.0.0.1/24", "2001:db8::1/64"],
        "namespace": {"type": 2, "name": "blue", "pid": 1, "microservice": "web", "filepath": "/run/x"},
        "veth": {"peer_if_name": "veth2"},
    }
).encode()
_FILES: Final = (_ONE, b"[" + _ONE + b", " + _ONE.replace(b"veth1", b"veth3") + b"]")
_NAMES: Final = (*json.loads(_ONE), "NETWORK_NAMESPACE", "VETH", "tap", "ipAddresses", "hostIfName")

_json = mutation.json_texts(*_NAMES, "veth1", "veth2", "10.0.0.1/24", "fe80::1/64", "::/0", "2", "0x10", "1_000")


def _check(parsed: Parsed) -> object:
    """A value ends as an interface that can be written and read again, or with problems; never with much text."""
    assert (parsed.interface is None) == bool(parsed.problems), parsed.problems
    told = [str(problem) for problem in parsed.problems] + list(parsed.warnings)
    assert sum(map(len, told)) < _LONGEST, f"{sum(map(len, told))} characters are told of it"
    assert not any(c in text for text in told for c in "\0\x1b\x7f"), "a control character is told"
    if parsed.interface is not None:
        (again,) = read(to_json(parsed.interface))
        assert again.interface == parsed.interface, again.problems
    return tuple(type(problem).__name__ for problem in parsed.problems[:3])


def _file(data: bytes) -> object:
    return len([_check(parsed) for parsed in read(data, "a.json")])


def _value(data: bytes) -> object:
    parsed = read_one(data, "key", name="veth1")
    assert parsed.name == "veth1"
    return _check(parsed)


def _list(data: bytes) -> object:
    text, elements = read_elements(data)
    assert edited(text, elements, {}) in (text, "")
    count = len(elements)
    shorter = [edited(text, elements, {place: None}) for place in range(min(3, count))]
    # Decoded, a text takes many times its bytes. An editor holds one at a time, and so does this.
    del elements
    for left in shorter:
        assert len(read_elements(left.encode())[1]) == count - 1 if left else count <= 1
    return count


def _directory(data: bytes) -> object:
    """Files of a directory that come, change and go: what is told leads to what the files hold in the end."""
    contents = Contents()
    known: dict[str, Parsed | None] = {}
    for number, piece in enumerate(data.split(b"\n\n")[:20]):
        name = f"{'ab'[number % 2]}.json"
        if piece:
            contents.put(name, read(piece, name))
        else:
            contents.drop(name)
        known |= {change.name: change.value for change in contents.settle()}
    assert {name for name, value in known.items() if value is not None} == contents.values.keys()
    assert all(same(known[name], value) for name, value in contents.values.items())
    return len(contents.values)


def _directories(random: Random, seeds: object) -> bytes:
    return b"\n\n".join(_json(random, _FILES) if random.random() < 0.9 else b"" for _ in range(random.choice((2, 4))))


_PREFIX: Final = prefix_of("vpp1")


def _etcd(data: bytes) -> object:
    """An answer to a watch: its keys and values are anybody's."""
    answer = pb.WatchResponse.FromString(data)
    told = Mirror(_PREFIX).apply(answer)
    for one in told:
        if (value := getattr(one, "value", None)) is not None:
            _check(value)
    return len(told)


def _answers(random: Random, seeds: object) -> bytes:
    answer = pb.WatchResponse()
    for _ in range(random.choice((1, 2, 6))):
        event = answer.events.add()
        event.type = random.choice((pb.Event.PUT, pb.Event.PUT, pb.Event.DELETE))
        key = random.choice((b"veth1", b"veth2", b"", b"a/b", b"%2F", b"key:x", b"\xff\0"))
        event.kv.key = random.choice((b"", _PREFIX, _PREFIX)) + (
            key if random.random() < 0.5 else mutation.raw(random, key)[:1000]
        )
        event.kv.value = _json(random, _FILES)
        event.kv.mod_revision = random.choice((1, 2, 3, 2**62))
    return answer.SerializeToString()


def _read_answer(data: bytes) -> object:
    try:
        return _etcd(data)
    except DecodeError:
        return None  # gRPC would have refused it


@cache
def _directory_of_files() -> Path:
    directory = tempfile.mkdtemp(prefix="vethlib-fuzz.")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Path(directory)


def _loaded(data: bytes) -> object:
    (_directory_of_files() / "a.json").write_bytes(data)
    configuration = load([_directory_of_files()])
    for parsed in configuration.parsed:
        _check(parsed)
    return len(configuration.parsed)


def _said(data: bytes) -> object:
    (_directory_of_files() / ".agent").write_bytes(data)
    return read_report(str(_directory_of_files())) is None


def _container(data: bytes) -> object:
    value = json.loads(data)
    config = {"Env": value.get("Env"), "Labels": value.get("Labels")}
    described = {"Id": "0" * 64, "Name": "/web", "Config": config, "State": {"Running": True, "Pid": 7}}
    described["State"]["StartedAt"] = "2024-05-04T03:02:01.5Z"  # type: ignore[index]
    return container(described)


def _containers(random: Random, seeds: object) -> bytes:
    """What a container's owner decides: strings in a list, and strings by strings."""
    words = ("MICROSERVICE_LABEL", "=", "web", "", "\0", "a=b", "x" * 5000, "microservice_label", "ä", "\ud800")
    env = ["".join(random.choices(words, k=random.choice((1, 2, 3)))) for _ in range(random.choice((0, 1, 30)))]
    labels = {random.choice(words): random.choice(words) for _ in range(random.choice((0, 1, 5)))}
    return json.dumps({"Env": random.choice((None, env)), "Labels": random.choice((None, labels))}).encode()


_STATUS: Final = json.dumps(
    {
        "name": "veth1",
        "state": "CONFIGURED",
        "reason": "",
        "warning": "",
        "since": "2024-05-04T03:02:01.500Z",
        "ifindex": 3,
        "oper_status": "UP",
        "addresses": ["10.0.0.1/24"],
        "attempts": 0,
    }
).encode()
_SAID: Final = b'{"store": "dir:/etc/vethlib", "ready": true, "outage": "", "outage_since": 0.0}'

# A list of `{}`, 350 000 times in a mebibyte, takes 112 MiB: each has an object, its number and its place. Beside it
# are five texts, of four bytes a character if a single one is beyond the Basic Multilingual Plane.
_LISTED: Final = (112 + 5 * 4) << 20

TARGETS: Final = (
    Target("file", _file, _json, _FILES),
    Target("value", _value, _json, (_ONE,)),
    Target("list", _list, _json, _FILES, (Undecodable,), seconds=4.0, memory=_LISTED),  # a text is read four times
    Target("directory", _directory, _directories, (b"",)),
    Target("etcd", _read_answer, _answers, (b"",)),
    Target("load", _loaded, _json, _FILES),
    Target("agent", _said, mutation.json_texts("store", "ready", "outage", "outage_since"), (_SAID,)),
    Target("status", as_entry, mutation.json_texts(*json.loads(_STATUS)), (_STATUS,)),
    Target("container", _container, _containers, (b"",)),
)
