"""Fixtures of the tests that need an etcd or a container engine."""

from __future__ import annotations

from tests.backends.engine_fixtures import (
    docker_engine,
    engine,
    home,
    make_engine,
    podman,
    resolver,
    running_podman,
    short_path,
)
from tests.backends.etcd_fixtures import (
    cluster,
    etcd,
    etcd_with_auth,
    follow,
    make_etcd,
    make_proxy,
    nothing_open,
    proxy,
    tls,
)

__all__ = [
    "cluster",
    "docker_engine",
    "engine",
    "etcd",
    "etcd_with_auth",
    "follow",
    "home",
    "make_engine",
    "make_etcd",
    "make_proxy",
    "nothing_open",
    "podman",
    "proxy",
    "resolver",
    "running_podman",
    "short_path",
    "tls",
]
