"""Named network namespaces: files in /run/netns with a namespace mounted over each, exactly as ``ip netns`` has them.

The name keeps its namespace alive, with no process in it, until it is removed. The directory is a shared mount so
that a name unmounted here is unmounted in every mount namespace that has a copy of it (netns_add in iproute2's
ip/ipnetns.c, whose steps these are).
"""

from __future__ import annotations

import errno
import os
import stat

from ..errors import InvalidValue, NetlinkError, NetnsExists, NetnsNotFound, NotPermitted, VethError, errno_text
from .descriptor import HERE, OPEN_FLAGS, Descriptor, current, opened
from .entering import call_in_new
from .reference import NETNS_DIR, check_netns_name, parse
from .syscalls import MNT_DETACH, MS_BIND, MS_REC, MS_SHARED, UMOUNT_NOFOLLOW, mount, umount2

__all__ = ["create", "names", "remove"]


def create(name: str, directory: str = NETNS_DIR) -> Descriptor:
    """Make a network namespace called `name` ("blue" or "netns:blue"), and return it open.

    Raises :class:`NetnsExists`, :class:`NotPermitted`, :class:`InvalidValue`.
    """
    reference = parse(name)
    if reference.kind != "netns":
        raise InvalidValue("netns", name, 'only a name can be created: write "blue" or "netns:blue"')
    path = f"{directory}/{reference.value}"
    made: list[None] = []
    try:
        _prepare(directory)
        # Through extend, all in C, so that we know whether the file is ours even if an interrupt follows the call.
        made.extend(map(os.mknod, (path,), (stat.S_IFREG,)))
        return call_in_new(lambda: _mounted(path))
    except BaseException as error:
        if made:
            _erase(path)
        if isinstance(error, OSError) and not isinstance(error, VethError):
            raise _refused("create", path, error) from None
        raise


def _mounted(path: str) -> Descriptor:
    mount(HERE.encode(), os.fsencode(path), b"none", MS_BIND, None)
    return current()


def _erase(path: str) -> None:
    try:
        _detach(path)
        os.unlink(path)
    except OSError:
        pass  # what went wrong before is what the caller wants to hear of


def _prepare(directory: str) -> None:
    """Make `directory` a shared mount, once, however many do this at the same time.

    Without the lock (iproute2 takes the same one) each of them would see a plain directory and put another mount on
    top, and a mount copied into 2^n peers stops the machine.
    """
    import fcntl

    os.makedirs(directory, 0o755, exist_ok=True)
    lock = opened(directory, OPEN_FLAGS | os.O_DIRECTORY)
    try:
        fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
        place = os.fsencode(directory)
        try:
            mount(b"", place, b"none", MS_SHARED | MS_REC, None)
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: no mount point yet
                raise
            mount(place, place, b"none", MS_BIND | MS_REC, None)
            mount(b"", place, b"none", MS_SHARED | MS_REC, None)
    finally:
        lock.close()  # which unlocks


def remove(name: str, *, missing_ok: bool = False, directory: str = NETNS_DIR) -> None:
    """Take a name away, as ``ip netns del`` does; the namespace ends when nothing else keeps it.

    Removes a leftover file too. Raises :class:`NetnsNotFound` unless `missing_ok`, and :class:`NotPermitted`.
    """
    # The name of any file there will do: ip lets people call one "a:b", which create() and a reference do not.
    bare = name.removeprefix("netns:") if isinstance(name, str) else name
    path = f"{directory}/{check_netns_name(bare, name)}"
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
        # Not following: /run/netns/x is a symbolic link where somebody lent a container's namespace a name.
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
            return False  # one mount less, and another one beneath it
        raise
    return True


def names(directory: str = NETNS_DIR) -> list[str]:
    """The names there are, sorted; none if nobody ever made one."""
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _refused("list", directory, error) from None


def _refused(verb: str, path: str, error: OSError) -> VethError:
    number = error.errno or 0
    what = f"cannot {verb} {path}"
    if number == errno.EEXIST and os.path.lexists(path):
        exists = NetnsExists(f"{path} already exists")
        exists.errno = number
        return exists
    if number in (errno.EPERM, errno.EACCES):
        return NotPermitted(f"{what}: it needs root, or CAP_SYS_ADMIN and write access there", errno=number)
    return NetlinkError(f"{what}: {errno_text(number)}", errno=number)
