"""A node: an anonymous network namespace that acts as one host of a topology, with the operations for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from vethlib import ns
from vethlib._primitives import Lock, are_threads_real, socket
from vethlib.errors import InvalidValue, LinkNotFound, NetlinkError, NetnsNotFound, NotSupported
from vethlib.linkref import LinkRef, locate
from vethlib.links import IPInterface, Link, Stats
from vethlib.ns import Netns
from vethlib.ns.entering import NotesEntry, note_entered
from vethlib.ns.programs.errand import Stays
from vethlib.ns.programs.start import completed
from vethlib.session import Session
from vethlib.topology.calls import begin_call, name_of, no_coroutine
from vethlib.topology.programs.ending import end_processes, end_with_python, let_run
from vethlib.topology.programs.processes import Programs, as_text
from vethlib.topology.programs.wording import note_failure, note_session

from .blocks import Blocks, End
from .peers import Peer, reached
from .usable import wait_until_gone, wait_until_usable
from .waiting import wait_until, wait_until_listening

if TYPE_CHECKING:
    from .pinging import Pings
    from .routes import IPAddress, IPNetwork

__all__ = ["Node", "check_text", "end_programs", "release"]

P = ParamSpec("P")
T = TypeVar("T")

_END = 1.0  # seconds to wait for the end of a namespace, which something else may still use


class Node(NotesEntry):
    """One host of a topology.

    `netns` is its namespace. Both `netns` and the node itself can be used wherever a namespace reference is accepted.
    `name` is for people; nothing on the host has this name. In a ``with`` block, the calling thread, and no other, is
    in the namespace. `addresses` are the configured addresses, in the order of the links. `started` are the programs
    that :meth:`start` started.
    """

    def __init__(
        self,
        name: str,
        netns: Netns,
        session: Session,
        addresses: Iterable[IPInterface] = (),
        peers: Mapping[str, Peer] = MappingProxyType({}),
        switches: Mapping[str, Mapping[str, Peer]] = MappingProxyType({}),
        files: Mapping[str, str | Callable[[], str]] = MappingProxyType({}),
        indexes: Mapping[tuple[str, str], int] = MappingProxyType({}),
    ) -> None:
        netns.label = f"node {name}"
        self.name = name
        self.netns = netns
        self.addresses = tuple(addresses)
        self.started: list[subprocess.Popen[Any]] = []
        self._session = session
        self._peers = peers  # the other ends, by link
        self._switches = switches  # the peers of every switch, by its name
        # The ifindex of each link of the topology, by the name of its node and its own: tests may rename links.
        self._indexes = indexes
        self._programs = Programs(netns, files)
        self._awaited: set[subprocess.Popen[Any]] = set()  # programs that run() waits for
        self._blocks = Blocks()

    def __repr__(self) -> str:
        return f"<Node {self.name} {self.netns}{' closed' if self.closed else ''}>"

    def fileno(self) -> int:
        """Return the descriptor of the namespace. Raises NetnsNotFound after :meth:`close`."""
        return self.netns.fd

    @property
    def label(self) -> str:
        """The name of the node in messages."""
        return self.netns.label

    @property
    def was_entered(self) -> bool:
        """Whether a thread or a program has entered the node, through it or through its `netns`."""
        return self.netns.was_entered

    def _note_entered(self) -> None:
        note_entered(self.netns)

    def __enter__(self) -> Node:
        block = self._blocks.take()
        try:
            note_entered(self)
            block.target = ns.open_owned(self.netns)
            block.__enter__()
        except BaseException:
            self._blocks.drop(block)
            raise
        return self

    if TYPE_CHECKING:

        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> None:
            """Return to where the thread was."""
    else:
        __exit__ = End()

    @property
    def ipv4(self) -> str:
        """The first configured IPv4 address, as text for a socket. Raises LookupError if there is none."""
        return self._first(4)

    @property
    def ipv6(self) -> str:
        """The first configured IPv6 address, as text for a socket; link-local addresses come last.

        Raises LookupError if there is none.
        """
        return self._first(6)

    def _first(self, version: int) -> str:
        from .routes import preferred

        for address in preferred([address for address in self.addresses if address.version == version]):
            return str(address.ip)
        raise LookupError(f"node {self.name} has no configured IPv{version} address")

    def socket(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0) -> socket.socket:  # noqa: A002
        """Return a socket of the node, which can be used from any thread and event loop."""
        return self.netns.socket(family, type, proto)

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` in the node, in a new thread, and return its result or raise its exception.

        Raises ThreadRefused, a VethError, if no thread can be started, and TypeError if it is a coroutine function.
        """
        ended = Lock()
        ended.acquire()
        future = self._submit(partial(function, *args, **kwargs), name_of(function), ended.release)
        ended.acquire()
        return future.result()

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call `function` as :meth:`call` does, but without waiting; return a future with the result.

        The thread is a daemon thread, so a function that never returns does not prevent the process from ending. Raises
        the same errors as :meth:`call`, and NotSupported if eventlet has replaced threads.
        """
        if sys.modules.get("eventlet") is not None and not are_threads_real():
            # A thread unknown to eventlet does not wake waiters of a future (eventlet/semaphore.py).
            raise NotSupported("under eventlet, another thread cannot set a future: use call() in eventlet.tpool")
        return self._submit(partial(function, *args, **kwargs), name_of(function))

    def _submit(self, function: Callable[[], T], name: str, ended: Callable[[], object] | None = None) -> Future[T]:
        block = self.netns.entered()  # opened here, so that a closed node raises an error at once
        return begin_call(function, block, name, self.name, ended)

    def run(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program in the node, as ``subprocess.run`` with output captured as text, and raise if it fails.

        `options` are those of ``subprocess.run``; `stdout` and `stderr` are captured unless they are given.
        The output of a failed program is in the notes of the exception. Raises NotSupported if this process ignores
        SIGCHLD, because the exit status would be lost.
        """
        __tracebackhide__ = True  # so that pytest shows the line of the test
        if "capture_output" not in options:
            options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        options = {"check": True} | as_text(options)
        try:
            return self._run(command, options)
        except (subprocess.SubprocessError, OSError) as error:
            note_failure(error, command)
            raise error.with_traceback(None) from None

    def _run(self, command: Sequence[str], options: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        note_entered(self)

        def ended(process: subprocess.Popen[Any]) -> None:
            self._awaited.discard(process)
            self._programs.forget(process)

        def begin(
            options: Mapping[str, Any], stays: Stays, keep: Callable[[subprocess.Popen[Any]], object]
        ) -> subprocess.Popen[Any]:
            def begun(process: subprocess.Popen[Any]) -> None:
                keep(process)
                self._awaited.add(process)

            return self._programs.begin(command, options, begun, stays)

        # If the wait is interrupted, close() waits for the program.
        return completed(begin, options, ended)

    def start(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program in the node, as ``subprocess.Popen`` does, and leave it running until the node ends.

        It gets its own process group. At the end of the node, the group receives SIGTERM; once the program has ended,
        or after two seconds, the rest of the group receives SIGKILL. The same happens if Python ends before the node
        does. Daemons that it has left in the background also receive SIGTERM at the end of the node, and SIGKILL two
        seconds after that. If this process is killed or crashes, all processes in the node are ended. Output is text,
        and is written to the output of the caller unless `options` redirect it. The exit status is 255 if it is
        unknown, because this process ignores SIGCHLD, or another part of it has waited for the program.

        The thread that starts the program ends at once, and with it a program that has requested a signal for that
        (PR_SET_PDEATHSIG). With ``start_new_session=True``, the program also gets its own session; `preexec_fn` cannot
        call ``os.setsid``.
        """
        if not options.get("start_new_session"):
            options = {"process_group": 0} | options
        options = {"stdin": subprocess.DEVNULL} | as_text(options)
        note_entered(self)
        try:
            return self._programs.begin(command, options, self._keep)
        except (subprocess.SubprocessError, OSError) as error:
            note_failure(error, command)
            if isinstance(error, subprocess.SubprocessError) and options.get("preexec_fn") is not None:
                note_session(error)
            raise

    def _keep(self, process: subprocess.Popen[Any]) -> None:
        self.started.append(process)
        end_with_python(process)

    def address(self, *, towards: Node | str, version: Literal[4, 6] | None = None) -> str:
        """Return the address of this node that is seen by another node, or by the owner of an address.

        ``server.address(towards=client)`` is the source address that the kernel chooses, as text. `version` is the IP
        version, by default that of the first address of the other node. Raises LookupError if there is no such address
        or no route, and InvalidValue if `towards` is neither a node nor an address, or an address of another version. A
        link-local address has the link of this node, as in "fe80::1%eth0".
        """
        from .routes import socket_address

        to = self._address_of_version(towards, version, "towards")
        address = socket_address(to, 9, self._index, "towards")
        family = socket.AF_INET if to.version == 4 else socket.AF_INET6
        with self.netns.socket(family, socket.SOCK_DGRAM) as asking:
            try:
                asking.connect(address)  # chooses a route and a source address, and sends nothing
            except OSError as error:
                raise LookupError(f"node {self.name} has no route to {to}: {error.strerror}") from None
            return str(asking.getsockname()[0])

    def ping(
        self,
        other: Node | str,
        *,
        count: int = 1,
        timeout: float = 2.0,
        interval: float = 0.01,
        version: Literal[4, 6] | None = None,
    ) -> Pings:
        """Send echo requests to a node or an address, and return the results: ``assert a.ping(b)``.

        The requests are `interval` seconds apart; replies are awaited up to `timeout` seconds after the last one. No
        program is needed. A request that is refused, by a firewall or a route such as "blackhole", is not answered.
        `version` and link-local addresses are as for :meth:`address`. Raises LookupError if the other node has no
        address, and InvalidValue and NotPermitted.
        """
        from .pinging import ping
        from .routes import socket_address

        to = self._address_of_version(other, version, "other")
        address = socket_address(to, 0, self._index, "other")
        return ping(self.netns, to.version, address, count=count, timeout=timeout, interval=interval)

    def _index(self, link: str) -> int:
        return self._session.index(link, self.netns)

    def _address_of_version(self, other: Node | str, version: Literal[4, 6] | None, field: str) -> IPAddress:
        """Return an address of another node. Raises as `_address_of` does, and InvalidValue for another `version`."""
        from .routes import check_version

        address = self._address_of(other, check_version(version), field)
        if version not in (None, address.version):
            raise InvalidValue("version", version, f"must be {address.version}, or be left out, for {address}")
        return address

    def _address_of(self, other: Node | str | IPAddress, version: Literal[4, 6] | None, field: str) -> IPAddress:
        """Return an address of another node, if possible in a network of this node.

        Raises LookupError if it has none, and InvalidValue, with `field`, if it is neither a node nor an address.
        """
        from .routes import check_address, closest, is_of_link

        if not isinstance(other, Node):
            return check_address(other, field)
        found = closest(other.addresses, self.addresses, version)
        if found is None:
            raise LookupError(f"node {other.name} has no configured {f'IPv{version} ' if version else ''}address")
        return self._with_link(other, field) if is_of_link(found) else found

    def _with_link(self, other: Node, field: str) -> IPAddress:
        """Return an address of another node that is valid only on its link, with the link of this node."""
        from .routes import check_address

        configured = {address.ip for address in other.addresses}
        for link, peer in self._peers.items():
            for port in reached(peer, self._switches):
                if port.netns is not other.netns:
                    continue
                theirs = self._present(port.node, port.netns, port.link)
                mine = self._present(self.name, self.netns, link)
                if theirs is None or mine is None:
                    continue
                for address in theirs.addresses:
                    if address.ip in configured and address.version == 6:
                        return check_address(f"{address.ip}%{mine.index}", field)
        raise LookupError(f"node {other.name} has only addresses of links that do not lead to node {self.name}")

    def _present(self, node: str, netns: Netns, link: str) -> Link | None:
        """Return a link of the topology, whatever its name is by now, or else the link that has its name."""
        index = self._indexes.get((node, link))
        links = [each for each in self._session.links(netns) if each.index == index or each.name == link]
        return min(links, key=lambda each: each.index != index, default=None)

    def wait_for(self, condition: Callable[[], T], *, timeout: float = 5.0) -> T:
        """Call `condition` in the node repeatedly until its result is true, and return that result.

        ``client.wait_for(lambda: socket.create_connection((server.ipv4, 80))).close()`` waits for a server.

        An OSError, AssertionError, LookupError, VethError or error of a program means that the condition does not hold
        yet; all others are raised. The calling thread is in the node meanwhile, as in a ``with`` block.

        Raises WaitTimeout after `timeout` seconds, with the last error as its cause, TypeError if `condition` is a
        coroutine function, and NetnsNotFound after :meth:`close`.
        """
        self.fileno()  # raises NetnsNotFound, which would mean "not yet" in the loop
        note_entered(self)
        name = name_of(condition)

        def holds() -> T:
            return no_coroutine(ns.call_in(self.netns.fd, condition), name)

        return wait_until(holds, f"{name} does not hold", timeout, node=self.name)

    def sysctl(self, name: str, value: str | int | None = None) -> str:
        """Set a sysctl of the node, or only read it: ``node.sysctl("net.ipv4.ip_forward", 1)``; return its value.

        Only the sysctls of a network namespace (net.…) belong to a node. If the name of a link has a dot, write its
        sysctls with slashes: "net/ipv4/conf/eth0.7/forwarding". For a sysctl that can only be written, such as
        "net.ipv4.route.flush", the given value is returned.

        Raises InvalidValue, NotPermitted.
        """
        from .sysctls import check_sysctl, read_sysctl, write_sysctl

        path = check_sysctl(name)
        if value is not None:
            text = str(int(value)) if isinstance(value, bool) else str(value)
            return ns.call_in(self.netns.fd, partial(write_sysctl, path, text))
        return ns.call_in(self.netns.fd, partial(read_sysctl, path))

    def route(
        self,
        destination: str,
        *,
        via: Node | str | None = None,
        link: str | None = None,
        metric: int | None = None,
    ) -> None:
        """Add a route, or replace the one to the same destination: ``node.route("10.1.0.0/16", via="10.0.0.1")``.

        `destination` is a network, an address or "default". The route leads via a node or an address, or directly over
        a `link`. Of several routes, the route with the smallest `metric` is used.

        Raises InvalidValue, LinkNotFound, and NetlinkError if the kernel cannot reach `via`.
        """
        if via is None and link is None:
            raise InvalidValue("via", via, "must be a node or an address, unless there is a link")
        from .routes import replace

        replace(self.name, self.netns, *self._route(destination, via, link, metric))

    def remove_route(
        self,
        destination: str,
        *,
        via: Node | str | None = None,
        link: str | None = None,
        metric: int | None = None,
        missing_ok: bool = False,
    ) -> None:
        """Remove the first route to a destination that matches all given arguments.

        Raises the same errors as :meth:`route`, and NetlinkError if there is no such route, unless `missing_ok`.
        """
        from .routes import remove

        given = self._route(destination, via, link, metric)
        remove(self.name, self.netns, *given, missing_ok=missing_ok)

    def _route(
        self, destination: str, via: Node | str | None, link: str | None, metric: int | None
    ) -> tuple[IPNetwork, IPAddress | None, int, int]:
        from .routes import parts, scope_index

        index = 0 if link is None else self._index(link)
        network, gateway, metric = parts(
            destination, lambda version: None if via is None else self._address_of(via, version, "via"), metric
        )
        return network, gateway, index or scope_index(gateway, self._index), metric

    def set_file(self, path: str | os.PathLike[str], text: str | Callable[[], str]) -> None:
        """Replace a file for the programs of the node: ``node.set_file("/etc/resolv.conf", "nameserver 10.0.0.1")``.

        The file itself is not changed, and only programs of the node see `text`; functions called in the node do not. A
        callable is called when the first program is started. Only existing files can be replaced, and they keep their
        mode and owner; in /run, a missing file is created. Raises NotPermitted if the file does not exist, and
        InvalidValue if `path` is not absolute or `text` is not text. If mounts are forbidden, this call or the start of
        the first program raises NotPermitted; the latter also raises InvalidValue if the result of a callable is not
        text.
        """
        path = os.fspath(path)
        if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
            raise InvalidValue("path", path, "must be an absolute path")
        if callable(text):
            text = partial(_text_of, text)
        else:
            check_text(text, "text")
        self._programs.put(path, text)

    def wait_listening(self, port: int, *, udp: bool = False, timeout: float = 5.0) -> None:
        """Wait until a socket in the node listens on a TCP port, or is bound to a UDP port, that is, a daemon is ready.

        Raises WaitTimeout after `timeout` seconds, or immediately once all programs started in the node have failed (a
        program that ended successfully may have gone to the background), unless the test has ended them, or has waited
        for them or polled them. Raises InvalidValue.
        """
        if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 1 << 16:
            raise InvalidValue("port", port, "must be a number from 1 to 65535")
        wait_until_listening(self.netns, port, self.started, timeout, udp=udp, node=self.name)

    def links(self) -> list[Link]:
        """Return the links of the node with their addresses. Raises NetnsNotFound after :meth:`close`."""
        return self._session.links(self.netns)

    def set(self, link: LinkRef, **changes: Any) -> Link:
        """Change a link of the node, as :meth:`vethlib.Session.set` does: ``node.set("eth0", up=False)``.

        When this returns, IPv6 addresses at both ends of the wire can be used, provided that both ends are up. Raises
        the same errors as that method, and WaitTimeout.
        """
        changed = self._session.set(link, self.netns, **changes)
        link = locate(link)[0]
        wait_until_usable([(self.name, self.netns, changed.index)])
        peer = self._peer_of(changed.index) or self._peers.get(link)
        if peer is not None and changed.up:
            self._wait_for_peer(peer)
        return changed

    def _peer_of(self, index: int) -> Peer | None:
        """Return the other end of a link of the topology, whatever its name is by now."""
        return next((peer for link, peer in self._peers.items() if self._indexes.get((self.name, link)) == index), None)

    def _wait_for_peer(self, peer: Peer) -> None:
        """Wait for the other end of a wire, which may just have got its carrier again.

        It may have been renamed, and another link may have its name, such as one that was created in its place.
        """
        made = self._indexes.get((peer.node, peer.link))
        indexes = set() if made is None else {made}
        with suppress(LinkNotFound, NetnsNotFound):
            indexes.add(self._session.index(peer.link, peer.netns))
        for index in indexes:
            with suppress(LinkNotFound, NetnsNotFound):  # it was deleted, or its node closed
                wait_until_usable([(peer.node, peer.netns, index)])

    def stats(self, link: LinkRef) -> Stats:
        """Return the counters of a link of the node. Raises LinkNotFound, and NetnsNotFound after :meth:`close`."""
        return self._session.stats(link, self.netns)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self.netns.closed

    def close(self) -> None:
        """End the programs of the node and release its namespace, which ends with its links and their peers.

        Daemons that the programs have left in the background are ended, too. Other processes in the namespace, such as
        those that were started in a ``with`` block, are not. When this returns, the peers are gone, unless something
        else still uses the namespace, such as a socket of the node.
        """
        was_closed = self.closed
        try:
            end_programs([self])
        except BaseException:
            end_programs([self])  # those that are left, if the first call was interrupted
            raise
        finally:
            release(self)
        if not was_closed:
            self._wait_for_end()

    def _wait_for_end(self) -> None:
        """Wait for the kernel, which removes the links of a namespace some time after its end (cleanup_net)."""
        indexes = [(peer, self._indexes.get((peer.node, peer.link))) for peer in self._peers.values()]
        peers = [(peer.node, peer.netns, index) for peer, index in indexes if index and not peer.netns.closed]
        with suppress(NetnsNotFound, NetlinkError):  # another thread has closed them
            wait_until_gone(peers, _END)

    def let_run(self) -> None:
        """Let programs keep running when Python ends, for a node that is also kept by another process."""
        let_run(self.started)
        self._programs.let_run()

    def let_go(self) -> None:
        """Release the namespace without ending its programs; it ends with the last of them."""
        self.let_run()
        release(self)


def _text_of(function: Callable[[], str]) -> str:
    text = function()
    check_text(text, "text")
    return text


def check_text(value: object, field: str) -> None:
    """Check the text of a file. Raises InvalidValue."""
    try:
        if isinstance(value, str):
            value.encode()
            return
    except UnicodeEncodeError:
        pass
    raise InvalidValue(field, value, 'must be text that UTF-8 can encode, such as "nameserver 10.0.0.1\\n"')


def end_programs(nodes: Iterable[Node]) -> None:
    """End all programs of these nodes at the same time, including daemons and those that other threads are running."""
    nodes = list(nodes)
    started = [program for node in nodes for program in node.started]
    awaited = [program for node in nodes for program in node._awaited.copy()]  # other threads change the set
    end_processes(started, awaited, [view for node in nodes if (view := node._programs.view) is not None])
    for node in nodes:
        node._programs.let_run()


def release(node: Node) -> None:
    """Release the namespaces of a node. If ending its programs was interrupted, they still end with Python."""
    try:
        node._programs.close()
    finally:
        node.netns.close()
