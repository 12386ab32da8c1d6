"""A Docker Engine on this host: where it listens, whether it can be of use, and talking to it.

What is asked of it are process ids, and these mean something only where they are counted as they are here. So it has to
listen on a Unix socket; and of such a one the kernel says which process listens (SO_PEERCRED, unix(7)), and /proc of
that one in which pid namespaces it is. Without root, an engine keeps its containers where only its user may go.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import closing
from typing import TYPE_CHECKING, Any

from vethlib.errors import InvalidValue, errno_text

from .resolver import ResolverDown

if TYPE_CHECKING:
    from docker import APIClient

__all__ = [
    "DEFAULT_URL",
    "NOT_INSTALLED",
    "NotConnected",
    "connect",
    "engine_version",
    "failure",
    "said",
    "socket_path",
]

DEFAULT_URL = "unix:///var/run/docker.sock"
NOT_INSTALLED = "the Docker SDK for Python is not installed: pip install 'vethlib[docker]', and start this anew"

_TIMEOUT = 5.0  # seconds for an answer that takes milliseconds
_ucred = struct.Struct("=iII")  # pid, uid, gid: include/linux/socket.h


class NotConnected(ResolverDown):
    """Nothing listens there, or not for this user."""


def socket_path(url: str, field: str = "url") -> str:
    """The path in ``unix:///var/run/docker.sock``, or of one that is given as such. Raises InvalidValue."""
    path = url.removeprefix("unix://")
    if path.startswith("/"):
        return path
    if "://" in path or url.startswith(("tcp:", "ssh:", "http:", "https:", "npipe:", "fd:")):
        hint = "the process ids that another host's engine tells mean nothing here"
        raise InvalidValue(field, url, f"{hint}: give the socket of this one, such as {DEFAULT_URL}")
    raise InvalidValue(field, url, f"give the socket of this host's engine, such as {DEFAULT_URL}")


def connect(path: str) -> APIClient:
    """A client of the engine that listens there, for the caller to close. Raises ResolverDown, which says why not."""
    _check_peer(path)
    try:
        from docker import APIClient
        from docker.constants import DEFAULT_DOCKER_API_VERSION
    except ImportError:
        raise ResolverDown(NOT_INSTALLED) from None
    url = f"unix://{path}"
    # With version="auto" the request would be made before there is anything to close, should it fail.
    with closing(APIClient(base_url=url, version=DEFAULT_DOCKER_API_VERSION, timeout=_TIMEOUT)) as first:
        spoken = first.version(api_version=False)["ApiVersion"]
    client = APIClient(base_url=url, version=spoken, timeout=_TIMEOUT)
    try:
        _check_options(path, client.info())
    except BaseException:
        client.close()
        raise
    return client


def engine_version(path: str) -> str:
    """``20.10.24``, of the engine that listens there. Raises ResolverDown."""
    try:
        client = connect(path)
    except ResolverDown:
        raise
    except Exception as error:
        raise ResolverDown(failure(path, error)) from None
    try:
        return str(client.version()["Version"])
    except Exception as error:
        raise ResolverDown(failure(path, error)) from None
    finally:
        client.close()


def failure(path: str, error: Exception) -> str:
    """What to say of anything that came of talking to it."""
    if isinstance(error, ResolverDown):
        return str(error)
    text = "it does not answer" if _is_late(error) else said(error)
    return f"the Docker Engine at {path} cannot be asked: {text}"


def said(error: Exception) -> str:
    """Its text, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _is_late(error: Exception) -> bool:
    """Whether it comes of an engine that takes a connection and says nothing, or stops in the middle of an answer."""
    from requests.exceptions import Timeout
    from urllib3.exceptions import TimeoutError as Late

    # What comes in the middle is the only argument of a ConnectionError.
    return any(isinstance(one, (TimeoutError, Timeout, Late)) for one in (error, *error.args))


def _check_peer(path: str) -> None:
    """Raise ResolverDown unless something listens there that counts processes as we do."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_TIMEOUT)
        try:
            sock.connect(path)
        except OSError as error:
            raise NotConnected(_not_connected(path, error)) from None
        pid, _, _ = _ucred.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _ucred.size))
    if pid and _levels(pid) == 1:
        return
    if pid and not os.path.exists(f"/proc/{pid}"):
        reason = f"process {pid}, which listens there, is not to be seen in /proc"
    else:
        reason = "it counts processes in another pid namespace"
    raise ResolverDown(
        f"the Docker Engine at {path} is of no use here, for {reason}: run this where the engine runs (--pid host)"
    )


def _levels(pid: int) -> int:
    """In how many pid namespaces a process has a number, counted from the one that /proc shows; 0 for no process."""
    try:
        with open(f"/proc/{pid}/status") as status:
            return next((len(line.split()) - 1 for line in status if line.startswith("NSpid:")), 1)
    except OSError:
        return 0


def _not_connected(path: str, error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"there is no Docker Engine yet: {path} does not exist"
    if error.errno == errno.ECONNREFUSED:
        return f"there is no Docker Engine yet: nothing listens at {path}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"the Docker Engine at {path} is not for this user: run as root, or join the group docker and log in anew"
        )
    text = "it does not answer" if isinstance(error, TimeoutError) else errno_text(error.errno or 0)
    return f"no connection to the Docker Engine at {path}, which is tried again: {text}"


def _check_options(path: str, info: dict[str, Any]) -> None:
    if any("name=rootless" in option.split(",") for option in info.get("SecurityOptions") or ()):
        raise ResolverDown(
            f"the Docker Engine at {path} runs rootless: the network namespaces of its containers belong to a user "
            "namespace of its own; use an engine that runs as root"
        )
