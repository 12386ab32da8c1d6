#!/usr/bin/env python3
"""A CNI plugin: it connects each container to a bridge of the host, with a gateway and a default route.

    install -m 755 examples/cni.py /opt/cni/bin/veth-bridge    # an environment with vethlib in its first line

Its network configuration is such as this; the first address of the subnet is that of the gateway, which the bridge has:

    {"cniVersion": "1.0.0", "name": "pods", "type": "veth-bridge", "bridge": "cni0", "subnet": "10.88.0.0/24"}

The kernel is the only database: the alias of the host's end of a pair names the container and its address. So every
command may be repeated, and ADD completes what an earlier one, which was killed, has begun.
"""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, TextIO

from vethlib import End, InvalidValue, Link, LinkNotFound, Session, Veth, VethError, ns

VERSIONS = ("1.0.0", "1.1.0")
BAD_VERSION, BAD_ENVIRONMENT, FAILED_IO, NOT_JSON, BAD_CONFIGURATION = 1, 4, 5, 6, 7  # of the CNI specification
TRY_AGAIN = 11  # also of the specification: "try again later"
REFUSED, NOT_AS_ADDED, NO_ADDRESS = 100, 101, 102  # of this plugin

LOCK = "/run/veth-bridge.lock"  # not the plugin itself: anybody who can read a file can lock it
PATIENCE = 10.0  # seconds to wait for the lock


class Failure(Exception):
    """Ends a command with a code and a message."""


@dataclass(frozen=True)
class Attachment:
    """One interface of a container in a network, as the runtime describes it."""

    network: str
    bridge: str
    subnet: IPv4Network
    container: str
    ifname: str
    netns: str

    @classmethod
    def of(cls, environment: Mapping[str, str], configuration: Mapping[str, Any]) -> "Attachment":
        """Read what the runtime gives. Raises Failure."""
        try:
            subnet = IPv4Network(configuration["subnet"])
            network, bridge = str(configuration["name"]), str(configuration.get("bridge", "cni0"))
        except (KeyError, ValueError) as error:
            raise Failure(BAD_CONFIGURATION, f"name and subnet are required: {error}") from None
        if subnet.prefixlen > 30:
            raise Failure(BAD_CONFIGURATION, f"{subnet} has no room for a gateway and a container")
        try:
            container, ifname = environment["CNI_CONTAINERID"], environment["CNI_IFNAME"]
        except KeyError as error:
            raise Failure(BAD_ENVIRONMENT, f"{error} is required") from None
        return cls(network, bridge, subnet, container, ifname, f"path:{environment.get('CNI_NETNS', '')}")

    @property
    def gateway(self) -> IPv4Address:
        """The address of the bridge."""
        return self.subnet[1]

    @property
    def host_end(self) -> str:
        """The name of the host's link: always the same for this interface, and never that of another one."""
        return "veth" + hashlib.sha256(f"{self.container}/{self.ifname}".encode()).hexdigest()[:11]

    def alias(self, address: object) -> str:
        """Return the alias of the host's link for an address."""
        return f"{self.network} {self.container} {self.ifname} {address}"


def add(session: Session, wanted: Attachment) -> dict[str, Any]:
    """Connect the container, as far as it is not connected yet; return what it has."""
    with one_at_a_time():
        bridge = make_bridge(session, wanted)
        links = {link.name: link for link in session.links()}
        address = address_of(links.get(wanted.host_end), wanted)
        if address and is_link(session, wanted.ifname, wanted.netns):
            outside, inside = links[wanted.host_end], session.lookup(wanted.ifname, wanted.netns)
        else:
            session.delete(wanted.host_end, missing_ok=True)
            address = address or free_address(links.values(), wanted)
            outside, inside = session.create(
                Veth(
                    End(wanted.host_end, alias=wanted.alias(address)),
                    End(wanted.ifname, wanted.netns, addresses=[f"{address}/{wanted.subnet.prefixlen}"]),
                )
            )
    ip("link", "set", wanted.host_end, "master", wanted.bridge)
    ip("route", "replace", "default", "via", wanted.gateway, netns=wanted.netns)
    return {
        "interfaces": [
            {"name": bridge.name, "mac": bridge.mac},
            {"name": outside.name, "mac": outside.mac},
            {"name": inside.name, "mac": inside.mac, "sandbox": wanted.netns.removeprefix("path:")},
        ],
        "ips": [{"address": f"{address}/{wanted.subnet.prefixlen}", "gateway": str(wanted.gateway), "interface": 2}],
        "routes": [{"dst": "0.0.0.0/0", "gw": str(wanted.gateway)}],
        "dns": {},
    }


def delete(session: Session, wanted: Attachment) -> None:
    """Remove the pair, both ends, if it exists; the namespace of the container may be gone already."""
    session.delete(wanted.host_end, missing_ok=True)


def check(session: Session, wanted: Attachment) -> None:
    """Raise Failure unless the container is connected as ADD connected it."""
    try:
        outside, inside = session.lookup(wanted.host_end), session.lookup(wanted.ifname, wanted.netns)
    except LinkNotFound as error:
        raise Failure(NOT_AS_ADDED, str(error)) from None
    address = address_of(outside, wanted)
    if not (inside.up and outside.up and address in [each.ip for each in inside.addresses]):
        raise Failure(NOT_AS_ADDED, f"{inside.name} is not up with the address {address}")


def make_bridge(session: Session, wanted: Attachment) -> Link:
    """Return the bridge, which is up, has the address of the gateway, and forwards; create it if it is missing."""
    if not is_link(session, wanted.bridge):
        # A MAC address of its own, because otherwise the bridge would change it with every container.
        mac = b"\x02\x00" + wanted.gateway.packed
        ip("link", "add", wanted.bridge, "address", mac.hex(":"), "type", "bridge")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="utf-8")
    return session.set(wanted.bridge, up=True, add_addresses=[f"{wanted.gateway}/{wanted.subnet.prefixlen}"])


def is_link(session: Session, name: str, netns: str = "") -> bool:
    """Return whether a link exists."""
    try:
        session.index(name, netns)
    except LinkNotFound:
        return False
    return True


def address_of(link: Link | None, wanted: Attachment) -> IPv4Address | None:
    """Return the address of the container, according to the alias of the host's link."""
    start, _, address = (link.alias if link else "").rpartition(" ")
    return IPv4Address(address) if f"{start} " == wanted.alias("") else None


def free_address(links: Iterable[Link], wanted: Attachment) -> IPv4Address:
    """Return the first address that no container of the network has. Raises Failure."""
    taken = {link.alias.rpartition(" ")[2] for link in links if link.alias.startswith(f"{wanted.network} ")}
    for address in wanted.subnet.hosts():
        if address != wanted.gateway and str(address) not in taken:
            return address
    raise Failure(NO_ADDRESS, f"all addresses of {wanted.subnet} are taken")


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Wait until no other process chooses an address. Raises Failure."""
    deadline = time.monotonic() + PATIENCE
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Failure(TRY_AGAIN, f"{LOCK} is held by another process") from None
                time.sleep(0.01)
        yield
    finally:
        os.close(lock)


def ip(*words: object, netns: str = "") -> None:
    """Run ip(8) in a namespace. Raises Failure with what it prints."""
    done = ns.run(netns, ["ip", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise Failure(FAILED_IO, f"ip {' '.join(map(str, words))}: {done.stdout.strip()}")


def answer(environment: Mapping[str, str], stdin: TextIO) -> dict[str, Any] | None:
    """Carry out the command of the runtime, and return what is to be printed. Raises Failure, VethError."""
    try:
        configuration = json.load(stdin)
        version = str(configuration["cniVersion"])
    except (ValueError, KeyError, TypeError) as error:
        raise Failure(NOT_JSON, f"the network configuration is not what it should be: {error}") from None
    command = environment.get("CNI_COMMAND")
    if command == "VERSION":
        return {"cniVersion": version, "supportedVersions": VERSIONS}
    if version not in VERSIONS:
        raise Failure(BAD_VERSION, f"version {version} is not among {', '.join(VERSIONS)}")
    wanted = Attachment.of(environment, configuration)
    with Session() as session:
        if command == "ADD":
            return {"cniVersion": version, **add(session, wanted)}
        if command == "DEL":
            delete(session, wanted)
        elif command == "CHECK":
            check(session, wanted)
        else:
            raise Failure(BAD_ENVIRONMENT, f"CNI_COMMAND is {command}")
    return None


def main(environment: Mapping[str, str] = os.environ, stdin: TextIO = sys.stdin) -> int:
    """Answer the runtime on stdout: with a result, or with an error and the exit code 1."""
    try:
        result = answer(environment, stdin)
    except Failure as failure:
        code, message = failure.args
    except InvalidValue as error:
        code, message = BAD_CONFIGURATION, str(error)
    except (VethError, OSError) as error:
        code, message = REFUSED, str(error)
    else:
        if result is not None:
            print(json.dumps(result))
        return 0
    print(json.dumps({"cniVersion": VERSIONS[0], "code": code, "msg": message}))
    return 1


if __name__ == "__main__":
    sys.exit(main())
