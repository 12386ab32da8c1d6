"""Named network namespaces: files in /run/netns with a namespace mounted on each, exactly like those of ``ip netns``.

The name keeps its namespace alive, with no process in it, until it is removed. The directory is a shared mount so
that a name unmounted here is unmounted in every mount namespace that has a copy of it (like
netns_add in iproute2's ip/ipnetns.c).
"""

from __future__ import annotations

import errno
import os

from vethlib.errors import (
    InvalidValue,
    NetlinkError,
    NetnsExists,
    NetnsNotFound,
    VethError,
    check_path,
    errno_text,
    not_permitted,
)
from vethlib.ns.files.glance import glance_at

from .descriptor import HERE, OPEN_FLAGS, Descriptor, current, make_file, opened
from .entering import call_in_new, can_enter
from .loopback import set_loopback_up
from .opening import NoNamespace, is_directory, link_at
from .opening import opened as opened_namespace
from .reference import NETNS_DIR, check_netns_name, dangling, parse
from .syscalls import MNT_DETACH, MS_BIND, MS_REC, MS_SHARED, UMOUNT_NOFOLLOW, mount, umount2

__all__ = ["create", "erase", "names", "remove"]

_LOCKED = 5.0  # seconds to wait for other processes that are doing the same


def create(name: str, directory: str = NETNS_DIR, *, up: bool = False, made: list[None] | None = None) -> Descriptor:
    """Create a network namespace called `name` ("blue" or "netns:blue"), and return it open.

    With `up`, its loopback is set up. `made` is not empty once there is a file of that name: a caller that is
    interrupted after this has returned can then erase it.

    Raises :class:`NetnsExists`, :class:`NotPermitted`, :class:`InvalidValue`.
    """
    reference = parse(name)
    if reference.kind != "netns":
        raise InvalidValue("netns", name, 'must be a name, such as "blue" or "netns:blue": nothing else can be created')
    if not reference.value.isascii() or not reference.value.isprintable():
        _check_no_controls(reference.value, name)
    path = f"{directory}/{reference.value}"
    made = [] if made is None else made
    try:
        _prepare(directory)
        make_file(path, made)
        return call_in_new(lambda: _ready(path) if up else _mounted(path))
    except BaseException as error:
        if made:
            _erase(path)
            made.clear()
        if isinstance(error, OSError) and not isinstance(error, VethError):
            raise _refused("create", path, error) from None
        raise


def _check_no_controls(value: str, given: str) -> None:
    from vethlib.text import has_controls  # rarely needed

    if has_controls(value):
        raise InvalidValue("netns", given, "must not contain control or text-direction characters")


def _ready(path: str) -> Descriptor:
    set_loopback_up()  # before anybody can find the namespace
    return _mounted(path)


def _mounted(path: str) -> Descriptor:
    mount(HERE.encode(), os.fsencode(path), b"none", MS_BIND, None)
    return current()


def erase(name: str) -> None:
    """Remove a name that :func:`create` has made. Raises nothing."""
    _erase(f"{NETNS_DIR}/{parse(name).value}")


def _erase(path: str) -> None:
    try:
        _detach(path)
        os.unlink(path)
    except OSError:
        pass  # the previous error is the one to raise


def _prepare(directory: str) -> None:
    """Make `directory` a shared mount, only once even if several processes do this at the same time.

    Without the lock (iproute2 takes the one on the directory), each of them would see a plain directory and add another
    mount, and a mount that is copied to 2^n peers stops the machine.
    """
    from vethlib import _locks, _trusted

    place = os.fsencode(directory)
    if _made_shared(place):
        return
    if not os.path.isdir(directory):
        if os.path.lexists(directory):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        if not can_enter():  # nor mount: then not even the directory should be left behind
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        os.close(_trusted.open_directory(directory, make=True))
    parent, name = os.path.split(os.path.realpath(directory))
    with (
        opened(directory, OPEN_FLAGS | os.O_DIRECTORY) as lock,
        opened(parent, OPEN_FLAGS | os.O_DIRECTORY) as beside,
        _locks.exclusive(
            lock.fileno(),
            _LOCKED,
            lambda uid: uid in (0, os.geteuid()),  # anybody else can open it, and hold a lock for ever
            file=f".{name}.lock",  # beside the directory: inside it, it would be the name of a namespace
            directory=beside.fileno(),
        ),
    ):
        if not _made_shared(place):
            mount(place, place, b"none", MS_BIND | MS_REC, None)
            mount(b"", place, b"none", MS_SHARED | MS_REC, None)


def _made_shared(place: bytes) -> bool:
    """Make a mount point shared; return False if there is no mount point yet."""
    try:
        mount(b"", place, b"none", MS_SHARED | MS_REC, None)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return False
        raise
    return True


def remove(name: str, *, missing_ok: bool = False, directory: str = NETNS_DIR) -> None:
    """Remove a name, as ``ip netns del`` does; the namespace ends when nothing else uses it.

    A leftover file of that name is also removed. Raises :class:`NetnsNotFound` unless `missing_ok`, and
    :class:`NotPermitted`.
    """
    # Any file name is accepted: ip permits a name like "a:b", which create() and a reference do not.
    bare = name.removeprefix("netns:") if isinstance(name, str) else name
    path = f"{check_path(directory, 'directory')}/{check_netns_name(bare, name)}"
    try:
        while not _unlinked(path, _detach(path)):
            pass
    except FileNotFoundError:
        if not missing_ok:
            raise NetnsNotFound(f"{path} does not exist", netns=f"netns:{os.path.basename(path)}") from None
    except OSError as error:
        raise _refused("remove", path, error) from None


def _detach(path: str) -> bool:
    try:
        # Without following: /run/netns/x may be a symbolic link that gives a name to a container's namespace.
        umount2(os.fsencode(path), MNT_DETACH | UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: nothing is mounted there
            raise
        return False
    return True


def _unlinked(path: str, detached: bool) -> bool:
    try:
        os.unlink(path)
    except OSError as error:
        if error.errno == errno.EBUSY and detached:
            return False  # there was another mount beneath
        raise
    return True


def names(directory: str = NETNS_DIR) -> list[str]:
    """Return all names, sorted.

    ``f"netns:{name}"`` is the reference of each; a name without a colon can be used as it is.
    """
    try:
        return sorted(os.listdir(check_path(directory, "directory")))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _refused("list", directory, error) from None


def _refused(verb: str, path: str, error: OSError) -> VethError:
    number = error.errno or 0
    what = f"cannot {verb} {path}"
    if number == errno.EEXIST and _is_there(path):
        return _exists(path)
    if number in (errno.EPERM, errno.EACCES):
        message = f"{what}: it needs root, or CAP_SYS_ADMIN and write access there"
        return not_permitted(message, "CAP_SYS_ADMIN", errno=number)
    if isinstance(error, TimeoutError):  # of a lock, whose text has the holder
        return NetlinkError(f"{what}: the directory is {error.strerror}", errno=number)
    return NetlinkError(f"{what}: {errno_text(number)}", errno=number)


def _exists(path: str) -> NetnsExists:
    name = os.path.basename(path)
    obstacle = _obstacle(path, name)
    exists = NetnsExists(f"{path} already exists" + (f", but is {obstacle}" if obstacle else ""))
    exists.errno, exists.unusable, exists.netns = errno.EEXIST, bool(obstacle), f"netns:{name}"
    return exists


def _obstacle(path: str, name: str) -> str:
    """Describe what is at `path` if it is not a namespace; "" if it is, or if that cannot be determined."""
    try:
        with opened_namespace(path):
            return ""
    except NoNamespace:
        if is_directory(path):
            return f"a directory (rmdir {path} removes it)"
        return f"not a namespace: it is being created, or was left behind (ip netns del {name} removes it)"
    except (FileNotFoundError, ProcessLookupError):
        link = link_at(path)
        return dangling(parse(f"netns:{name}"), link) if link else ""
    except OSError:
        return ""


def _is_there(path: str) -> bool:
    try:
        glance_at(path)
    except OSError:
        return False
    return True
