"""Replace files in one step, so that every reader sees a complete file. vethlib writes all its files this way.

The only exception: where there is no room for another file, vethlib may overwrite one of its own (`overwrite`).

New content is written beside the file and renamed into place. At any time, whatever happens:

1. The path has the old content or the new, never a part of either.
2. An error or an interruption leaves nothing beside the file, and reaches the caller: the clean-up raises no error of
   its own, and does not assume how far writing got. Only SIGKILL leaves a file, which `is_unfinished` recognizes;
   the next run removes it from directories that only vethlib writes, and from stores (`remove_unfinished`).
3. Nobody can plant the temporary file beforehand: its name is random, and O_EXCL neither opens an existing file nor
   follows a link (open(2)). Mode and owner are set on the descriptor, not by the umask or through a path.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from functools import partial

from ._primitives import posix, time

_UNFINISHED = re.compile(r"\.vethlib-[0-9a-f]{16}")
_PERMISSIONS = 0o777  # set-user-ID and the like must not apply to content that somebody else wrote
_UNUSED = 60.0  # seconds after which nobody is writing a file any more
_BLOCK = 512  # bytes: the unit of st_blocks


def write_whole(
    path: str, content: bytes, *, mode: int | None = 0o644, keep: bool = False, directory: int | None = None
) -> None:
    """Replace or create a file; `directory` is the descriptor of the directory that a relative path starts from.

    The file gets this mode (None: 0666 less the umask) and belongs to the caller; with `keep`, it takes over the
    permissions and the owner of the regular file that it replaces, if there is one. Nothing is flushed to the disk. A
    symbolic link is replaced, not followed. Raises OSError, which names `path`.
    """
    replacement = Replacement(path, directory=directory)
    try:
        replacement.write(content, mode=mode, keep=keep)
        replacement.replace()
    except BaseException as error:
        replacement.discard()
        if isinstance(error, OSError):
            error.filename, error.filename2 = path, None
        raise


def overwrite(name: str, content: bytes, *, directory: int) -> None:
    """Overwrite a file of the caller in place, in the space allocated to it, where none can be written beside it.

    The file does not shrink: spaces fill the rest. A reader may see only a part of the content. Raises OSError, also
    for a file that has another owner or a second name, because somebody else may have put it there.
    """
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.open(name, flags, dir_fd=directory)
    try:
        old = os.fstat(file)
        if not stat.S_ISREG(old.st_mode) or old.st_uid != os.geteuid() or old.st_nlink != 1:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), name)
        if len(content) > max(old.st_size, old.st_blocks * _BLOCK):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        write_all(file, content.ljust(old.st_size))
    finally:
        os.close(file)


def is_unfinished(name: str) -> bool:
    """Return whether a file was left by a process that was killed before it could rename it."""
    return _UNFINISHED.fullmatch(name) is not None


def remove_unfinished(directory: int) -> None:
    """Remove what killed processes of this user have left in a directory that is locked. Raises nothing.

    A recent file stays, because a process that does not take the lock (`vethctl graph -o`) may be writing it.
    """
    try:
        for name in filter(is_unfinished, os.listdir(directory)):
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if status.st_uid == os.geteuid() and status.st_mtime < time.time() - _UNUSED:
                os.unlink(name, dir_fd=directory)
    except OSError:
        pass  # the next process tries it


class Replacement:
    """New content for one of several files that a caller replaces; call `discard` after any interruption."""

    __slots__ = ("_directory", "_path", "_unfinished")

    def __init__(self, path: str, *, directory: int | None = None) -> None:
        self._path = path
        self._directory = directory
        self._unfinished = os.path.join(os.path.dirname(path), f".vethlib-{os.urandom(8).hex()}")

    def write(self, content: bytes, *, mode: int | None = 0o644, keep: bool = False) -> os.stat_result:
        """Write the content beside the file and return its status; see :func:`write_whole`."""
        # There is no bytecode between system call and file object, so an interruption cannot lose the descriptor.
        opener = partial(os.open, mode=0o666 if mode is None else mode & 0o600, dir_fd=self._directory)
        with open(self._unfinished, "xb", buffering=0, opener=opener) as file:
            write_all(file.fileno(), content)
            old = self._replaced() if keep else None
            if old is not None:
                _give(file.fileno(), old)
                os.fchmod(file.fileno(), old.st_mode & _PERMISSIONS)
            elif mode is not None:
                os.fchmod(file.fileno(), mode)
            return os.fstat(file.fileno())

    def flush(self) -> None:
        """Flush the content to the disk (fsync)."""
        # Neither follow nor wait for a file that somebody has put there meanwhile.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(self._unfinished, flags, dir_fd=self._directory)
        try:
            flush(file)
        finally:
            os.close(file)

    def replace(self) -> None:
        """Rename the content to the path of the file, in one step."""
        at = {} if self._directory is None else {"src_dir_fd": self._directory, "dst_dir_fd": self._directory}
        os.replace(self._unfinished, self._path, **at)

    def discard(self) -> None:
        """Remove the content if it is still beside the file. Raises nothing."""
        try:
            os.unlink(self._unfinished, dir_fd=self._directory)
        except OSError:
            pass

    def _replaced(self) -> os.stat_result | None:
        try:
            replaced = os.stat(self._path, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return replaced if stat.S_ISREG(replaced.st_mode) else None


def flush(descriptor: int) -> None:
    """Flush an open file or directory to the disk, unless its file system cannot do that (EINVAL, fsync(2)).

    Raises OSError for anything else.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def write_all(file: int, content: bytes) -> None:
    """Write all of `content` to an open file; a single write(2) may write only a part."""
    rest = memoryview(content)
    while rest:
        rest = rest[posix.write(file, rest) :]


def _give(file: int, old: os.stat_result) -> None:
    try:
        os.fchown(file, old.st_uid, old.st_gid)
    except PermissionError:
        pass  # the file then belongs to the caller, as with any editor
