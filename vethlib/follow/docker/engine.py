"""Connect to the Docker Engine of this host, and check that it can be used.

The engine returns process ids, which are only valid in its own pid namespace. So it must listen on a Unix socket, for
which the kernel reports the listening process (SO_PEERCRED, unix(7)), whose pid namespaces are in /proc. A rootless
engine keeps the namespaces of its containers in a user namespace that only its user can enter.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from vethlib._primitives import time
from vethlib.errors import InvalidValue, check_path, errno_text
from vethlib.follow.resolver import ResolverDown
from vethlib.ns.opening import hidden_process
from vethlib.text import cut

if TYPE_CHECKING:
    from docker import APIClient

__all__ = [
    "DEFAULT_URL",
    "NotConnected",
    "connect",
    "engine_version",
    "failure",
    "is_late",
    "socket_path",
    "text_of",
]

DEFAULT_URL = "unix:///var/run/docker.sock"
_NOT_INSTALLED = "the Docker SDK for Python is not installed: pip install 'vethlib[docker]', and restart this program"

_TIMEOUT = 5.0  # seconds for an answer, which usually takes milliseconds
_PIECE = 1 << 16
_LONGEST_ANSWER = 256 << 20  # bytes; the descriptions of containers include their labels, which images may set
_LONGEST_TEXT = 300  # characters of an engine's text that are passed on
_API_VERSION = re.compile(r"\d{1,3}\.\d{1,3}", re.ASCII)
_ucred = struct.Struct("=iII")  # pid, uid, gid: include/linux/socket.h


class NotConnected(ResolverDown):
    """The engine cannot be connected to."""

    @property
    def absent(self) -> bool:
        """Whether nothing listens there."""
        return self.code == "absent"


def socket_path(url: str, field: str = "url") -> str:
    """Return the path of a ``unix://`` URL; a path is returned as it is. Raises InvalidValue."""
    given = check_path(url, field)
    path = given.removeprefix("unix://")
    if path.startswith("/"):
        return path
    if "://" in path or given.startswith(("tcp:", "ssh:", "http:", "https:", "npipe:", "fd:")):
        hint = "the process ids of another host's engine are meaningless here"
        raise InvalidValue(field, url, f"{hint}: give the socket of this host's engine, such as {DEFAULT_URL}")
    raise InvalidValue(field, url, f"must be the socket of this host's engine, such as {DEFAULT_URL}")


def connect(path: str) -> APIClient:
    """Return a client of the engine that listens there; the caller closes it. Raises ResolverDown with the reason."""
    _check_peer(path)
    try:
        from docker import APIClient
        from docker.constants import DEFAULT_DOCKER_API_VERSION
    except ImportError:
        raise ResolverDown(_NOT_INSTALLED, code="not-installed") from None
    url = f"unix://{path}"
    # With version="auto", the constructor would make the request, and if it failed, there would be no client to close.
    with closing(APIClient(base_url=url, version=DEFAULT_DOCKER_API_VERSION, timeout=_TIMEOUT)) as first:
        first.hooks["response"].append(_receive)
        spoken = _api_version(path, first)
    client = APIClient(base_url=url, version=spoken, timeout=_TIMEOUT)
    client.hooks["response"].append(_receive)
    try:
        _check_options(path, client.info())
    except BaseException:
        client.close()
        raise
    return client


class AnswerTooLong(ValueError):
    """An answer of the engine has no end, or is much longer than that of any real engine."""


def _receive(answer: Any, *, stream: bool, timeout: float, **_: object) -> None:
    """Receive an answer, because requests would receive one without end, in pieces, until all memory is used up.

    Called by requests, as a hook. Events, a `stream`, are received by their reader.
    """
    if stream:
        return
    from requests.exceptions import ReadTimeout

    deadline = time.monotonic() + timeout
    content = bytearray()
    read = getattr(answer.raw, "read1", answer.raw.read)  # read() waits for a whole piece; urllib3 1 has no other
    with closing(answer):
        while piece := read(_PIECE, decode_content=True):
            content += piece
            if len(content) > _LONGEST_ANSWER:
                raise AnswerTooLong(f"its answer has more than {_LONGEST_ANSWER >> 20} MiB")
            if time.monotonic() > deadline:
                raise ReadTimeout
        answer._content, answer._content_consumed = bytes(content), True  # so that closing keeps the connection


def _api_version(path: str, client: APIClient) -> str:
    """Return the version of the API that an engine speaks. Raises ResolverDown if something else listens there."""
    from http.client import BadStatusLine, LineTooLong, RemoteDisconnected

    from docker.errors import NotFound

    try:
        described = client.version(api_version=False)
    except (NotFound, AnswerTooLong) as error:
        raise _no_engine(path, text_of(error)) from None
    except ValueError:
        raise _no_engine(path, "its answer is not JSON") from None
    except Exception as error:
        for cause in _causes(error):
            # RemoteDisconnected is raised when an engine ends.
            if isinstance(cause, BadStatusLine | LineTooLong) and not isinstance(cause, RemoteDisconnected):
                raise _no_engine(path, text_of(error)) from None
        raise
    spoken = described.get("ApiVersion") if isinstance(described, dict) else None
    if isinstance(spoken, str) and _API_VERSION.fullmatch(spoken):
        return spoken
    raise _no_engine(path, "ApiVersion is missing" if spoken is None else f"ApiVersion is {spoken!r}")


def _no_engine(path: str, why: str) -> ResolverDown:
    text = f"what listens at {path} does not answer as a container engine does: {cut(why, _LONGEST_TEXT)}"
    return ResolverDown(f"{text}; give the socket of this host's engine, such as {DEFAULT_URL}", code="engine-error")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those in its arguments, where requests and urllib3 put them."""
    yield error
    for cause in error.args:
        if isinstance(cause, BaseException):
            yield from _causes(cause)


def engine_version(path: str) -> str:
    """Return the version of the engine that listens there, such as ``20.10.24``. Raises ResolverDown."""
    try:
        client = connect(path)
    except ResolverDown:
        raise
    except Exception as error:
        raise failure(path, error) from None
    try:
        return str(client.version()["Version"])
    except Exception as error:
        raise failure(path, error) from None
    finally:
        client.close()


def failure(path: str, error: Exception) -> ResolverDown:
    """Return the error for any exception of a request to the engine."""
    if isinstance(error, ResolverDown):
        return error
    code, text = ("no-answer", "it does not answer") if is_late(error) else ("engine-error", text_of(error))
    return ResolverDown(f"the Docker Engine at {path} cannot be queried: {cut(text, _LONGEST_TEXT)}", code=code)


def text_of(error: Exception) -> str:
    """Return the text of an exception, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def is_late(error: Exception) -> bool:
    """Return whether an exception means that the engine accepts connections but does not answer, or stops halfway."""
    from requests.exceptions import Timeout
    from urllib3.exceptions import TimeoutError as Late

    # A timeout in the middle of an answer is the argument of a ConnectionError.
    return any(isinstance(cause, (TimeoutError, Timeout, Late)) for cause in (error, *error.args))


def _check_peer(path: str) -> None:
    """Raise ResolverDown unless the process that listens there is in the same pid namespace."""
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        message = f"no UNIX socket for the Docker Engine at {path} can be created: {errno_text(error.errno or 0)}"
        raise NotConnected(message, code="not-permitted") from None
    with sock:
        sock.settimeout(_TIMEOUT)
        try:
            sock.connect(path)
        except OSError as error:
            raise _not_connected(path, error) from None
        pid, _, _ = _ucred.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _ucred.size))
    if pid and _levels(pid) == 1:
        return
    if pid and hidden_process(f"/proc/{pid}"):
        raise ResolverDown(
            f"the Docker Engine at {path} cannot be used, because /proc hides process {pid}, which listens there "
            "(mount option hidepid): run as root, or with CAP_SYS_PTRACE",
            code="not-permitted",
        )
    if pid and not os.path.exists(f"/proc/{pid}"):
        reason = f"process {pid}, which listens there, is not in /proc"
    else:
        reason = "it is in another pid namespace"
    raise ResolverDown(
        f"the Docker Engine at {path} cannot be used, because {reason}: run this where the engine runs (--pid host)",
        code="other-pid-namespace",
    )


def _levels(pid: int) -> int:
    """Return the number of nested pid namespaces of a process, from that of /proc on; 0 if it does not exist."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as status:
            return next((len(line.split()) - 1 for line in status if line.startswith("NSpid:")), 1)
    except OSError:
        return 0


def _not_connected(path: str, error: OSError) -> NotConnected:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotConnected(f"there is no Docker Engine yet: {path} does not exist", code="absent")
    if error.errno == errno.ECONNREFUSED:
        if kind := _kind(path):
            # Docker itself creates a directory at the source of a bind mount if nothing exists there.
            text = f"there is no Docker Engine yet: {path} is a {kind}, not a socket"
            return NotConnected(f"{text}; give the socket of this host's engine", code="absent")
        return NotConnected(f"there is no Docker Engine yet: nothing listens at {path}", code="absent")
    if error.errno in (errno.EACCES, errno.EPERM):
        # Members of the group docker may use Docker's socket; podman's system service is for root alone.
        cure = "run as root" if "podman" in path else "run as root, or join the group docker and log in again"
        return NotConnected(f"this user may not connect to the Docker Engine at {path}: {cure}", code="not-permitted")
    is_silent = isinstance(error, TimeoutError)
    # A path that is too long is refused by Python, without an errno.
    text = "it does not answer" if is_silent else errno_text(error.errno) if error.errno else text_of(error)
    message = f"cannot connect to the Docker Engine at {path}, retrying: {text}"
    return NotConnected(message, code="no-answer" if is_silent else "engine-error")


def _kind(path: str) -> str:
    """Return what is at a path if it is no socket, and "" otherwise."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return ""
    return "" if stat.S_ISSOCK(mode) else "directory" if stat.S_ISDIR(mode) else "file"


def _check_options(path: str, info: dict[str, Any]) -> None:
    if any("name=rootless" in option.split(",") for option in info.get("SecurityOptions") or ()):
        raise ResolverDown(
            f"the Docker Engine at {path} runs rootless: the network namespaces of its containers belong to a user "
            "namespace of its own; use an engine that runs as root",
            code="rootless",
        )
