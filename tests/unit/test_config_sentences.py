"""The sentences about configurations and stores, all in this table: other tests ask for class, field and errno."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.capabilities import dropped
from tests.live.applying import interface, value
from tests.stores import news
from vethlib.agent.config.files import UnreadablePath, load
from vethlib.agent.config.northbound import read_one
from vethlib.agent.stores.files.directory import DirectoryStore
from vethlib.agent.stores.files.editing import DirectoryEditor
from vethlib.agent.stores.keys import beginning_of, key_of, name_of
from vethlib.agent.stores.opening import open_editor
from vethlib.agent.stores.protocol import Outage, StoreError
from vethlib.agent.stores.storecode import StoreCode
from vethlib.errors import InvalidValue, VethError
from vethlib.follow.docker.engine import NotConnected, connect, failure, socket_path
from vethlib.follow.resolver import ResolverDown


class Sentence(NamedTuple):
    """What is done in a directory, which is HERE in the message, and the error."""

    provoke: Callable[[Path], object]
    error: type[VethError]
    text: str


def a_socket_of_nobody(path: Path) -> object:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"{path}/socket")
    return connect(f"{path}/socket")


def an_engine_that_fails(path: Path) -> object:
    raise failure(f"{path}/socket", ValueError("500 Server\nError"))


def write(path: Path, *values: object) -> Path:
    path.write_text(json.dumps(values[0] if len(values) == 1 else values))
    return path


def named_twice(here: Path) -> object:
    for file in ("one", "two"):
        write(here / f"{file}.json", value("a", "b"))
    return DirectoryEditor(here).put(interface("a", "c"))


def in_a_broken_file(here: Path) -> object:
    (here / "a.json").write_text("[{")
    return DirectoryEditor(here).put(interface("a", "c"))


def invalid(**fields: object) -> Callable[[Path], object]:
    def provoke(_: Path) -> object:
        raise read_one(json.dumps(value("a", "b") | fields)).problems[0]

    return provoke


SENTENCES = {
    "a path that is not there": Sentence(
        lambda here: load([here / "x"]), UnreadablePath, "cannot read HERE/x: No such file or directory"
    ),
    "a store that is not there": Sentence(
        lambda here: DirectoryEditor(here / "x").values(), StoreError, "HERE/x does not exist: create the directory"
    ),
    "an interface in two files": Sentence(
        named_twice, InvalidValue, "name 'a': configured in HERE/one.json and in HERE/two.json: delete it first"
    ),
    "a broken file of that name": Sentence(
        in_a_broken_file,
        InvalidValue,
        "name 'a': HERE/a.json may contain it and others: line 1, column 3: not JSON: "
        "expecting property name enclosed in double quotes: correct that file first",
    ),
    "an MTU that no veth has": Sentence(invalid(mtu=5), InvalidValue, "mtu 5: a veth's MTU is 68 to 65535 bytes"),
    "an unknown key": Sentence(invalid(nam="x"), InvalidValue, "nam 'x': unknown key; did you mean name?"),
    "a key of another label": Sentence(
        lambda _: name_of(key_of("vpp2", "a"), "vpp1", "KEY"),
        InvalidValue,
        "KEY '/vnf-agent/vpp2/linux/config/v1/interface/a': the key belongs to label vpp2, not vpp1: "
        "give --label vpp2, or only the name",
    ),
    "a key of nothing": Sentence(
        lambda _: beginning_of("/vnf-agent/vpp1/linux/", "vpp1"),
        InvalidValue,
        "key '/vnf-agent/vpp1/linux/': must be a name or /vnf-agent/vpp1/linux/config/v1/interface/NAME",
    ),
    "a store in memory": Sentence(
        lambda _: open_editor("memory:", label="vpp1"),
        InvalidValue,
        "--store 'memory:': must be dir:PATH (a directory of *.json files) or etcd://HOST:PORT: "
        "a store in memory belongs to one process",
    ),
    "an engine elsewhere": Sentence(
        lambda _: socket_path("tcp://10.0.0.1:2375", "--docker"),
        InvalidValue,
        "--docker 'tcp://10.0.0.1:2375': the process ids of another host's engine are meaningless here: "
        "give the socket of this host's engine, such as unix:///var/run/docker.sock",
    ),
    "no engine": Sentence(
        lambda path: connect(f"{path}/none"), NotConnected, "there is no Docker Engine yet: HERE/none does not exist"
    ),
    "a socket on which no engine listens": Sentence(
        a_socket_of_nobody, NotConnected, "there is no Docker Engine yet: nothing listens at HERE/socket"
    ),
    "an engine that fails": Sentence(
        an_engine_that_fails, ResolverDown, "the Docker Engine at HERE/socket cannot be queried: 500 Server Error"
    ),
}

OUTAGES = {
    "nothing there": (lambda path: None, StoreCode.MISSING, "HERE/conf does not exist: create the directory"),
    "a file": (
        lambda path: path.write_text(""),
        StoreCode.NOT_A_DIRECTORY,
        "HERE/conf is not a directory: name the directory that contains the files",
    ),
    "a circular link": (
        lambda path: os.symlink("conf", path),
        StoreCode.CIRCULAR_LINK,
        "HERE/conf is a circular symbolic link: point it at a directory",
    ),
    "one of others": (
        lambda path: path.mkdir(mode=0),
        StoreCode.NOT_PERMITTED,
        "cannot read HERE/conf: Permission denied: let this user read and enter it",
    ),
}


@pytest.mark.parametrize("what", SENTENCES)
def test_an_error_has_this_sentence(tmp_path: Path, what: str) -> None:
    provoke, error, text = SENTENCES[what]
    with pytest.raises(error) as caught:
        provoke(tmp_path)
    assert str(caught.value).replace(str(tmp_path), "HERE") == text


@pytest.mark.parametrize("what", OUTAGES)
def test_an_outage_has_this_sentence(tmp_path: Path, what: str) -> None:
    prepare, code, text = OUTAGES[what]
    prepare(tmp_path / "conf")
    with dropped(), closing(DirectoryStore(tmp_path / "conf")) as store:
        (outage,) = news(store)
        assert isinstance(outage, Outage)
        assert (outage.reason.replace(str(tmp_path), "HERE"), outage.code) == (text, code)
