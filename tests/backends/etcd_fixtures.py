"""Servers for one test each, and networks between it and them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from tests.backends.etcd import Cluster, Etcd, Tls, missing
from tests.backends.etcd_consumer import LABEL, Consumer
from tests.backends.proxy import Proxy
from tests.witness import open_fds, poll

__all__ = ["cluster", "etcd", "etcd_with_auth", "follow", "make_etcd", "make_proxy", "nothing_open", "proxy", "tls"]

Follow = Callable[..., Consumer]
MakeEtcd = Callable[..., Etcd]
MakeProxy = Callable[..., Proxy]


@pytest.fixture
def make_etcd(tmp_path: Path) -> Iterator[MakeEtcd]:
    """Makes servers, which are yet to be started; they end with the test."""
    if why := missing():
        pytest.skip(why)
    made: list[Etcd] = []

    def make(*options: str, tls: Tls | None = None) -> Etcd:
        made.append(Etcd(tmp_path, *options, tls=tls, name=f"alone{len(made) or ''}"))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def etcd(make_etcd: MakeEtcd) -> Etcd:
    """A server that runs, and has nothing in it."""
    server = make_etcd()
    server.start()
    return server


@pytest.fixture
def etcd_with_auth(etcd: Etcd) -> Etcd:
    """A server with authentication."""
    etcd.enable_auth()
    return etcd


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three servers that run."""
    if why := missing():
        pytest.skip(why)
    servers = Cluster(tmp_path)
    try:
        servers.start()
        yield servers
    finally:
        servers.close()


@pytest.fixture
def nothing_open() -> Iterator[None]:
    """Check that the test leaves no descriptor and no thread; gRPC's end shortly after the last connection."""
    fds, threads = open_fds(), set(threading.enumerate())
    yield
    # There may be fewer, if those of an earlier test had not ended yet.
    assert poll(lambda: open_fds() <= fds), "a file descriptor was leaked"
    assert poll(lambda: set(threading.enumerate()) <= threads), set(threading.enumerate()) - threads


@pytest.fixture
def make_proxy(nothing_open: None) -> Iterator[MakeProxy]:
    """Makes networks in between, as :class:`Proxy` does."""
    made: list[Proxy] = []

    def make(*args: object, **how: object) -> Proxy:
        made.append(Proxy(*args, **how))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def proxy(etcd: Etcd, make_proxy: MakeProxy) -> Proxy:
    """The network between the test and `etcd`."""
    return make_proxy(etcd.address)


@pytest.fixture
def follow(nothing_open: None, caplog: pytest.LogCaptureFixture) -> Iterator[Follow]:
    """Follow the store of a URL; all stores are closed with the test. None may have had an unexpected error."""
    from vethlib.agent.stores.etcd.store import EtcdStore

    made: list[Consumer] = []

    def begin(url: str, label: str = LABEL) -> Consumer:
        made.append(Consumer(EtcdStore(url, label)))
        return made[-1]

    yield begin
    for one in made:
        one.store.close()
    assert [one.getMessage() for one in caplog.get_records("call") if one.levelno >= logging.ERROR] == []


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Tls]:
    """Makes certificates of one CA; `name` is the server's, `asks` whether it wants to see one of its clients."""
    directory = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    client = authority.issue_cert("agent@host")
    (directory / "client.pem").write_bytes(b"".join(one.bytes() for one in client.cert_chain_pems))
    client.private_key_pem.write_to_path(directory / "client.key")

    def make(name: str = "127.0.0.1", *, asks: bool = False) -> Tls:
        cert, key = directory / f"{name}.pem", directory / f"{name}.key"
        if not cert.exists():
            server = authority.issue_cert(name)
            cert.write_bytes(b"".join(one.bytes() for one in server.cert_chain_pems))
            server.private_key_pem.write_to_path(key)
        client = directory / "client.pem", directory / "client.key"
        return Tls(directory / "ca.pem", cert, key, *client, asks=asks, name=name)

    return make
