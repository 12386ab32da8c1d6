"""Codes for why a store cannot be read or written, for programs; the sentences are for people, and may change."""

from __future__ import annotations

import errno
from enum import StrEnum
from typing import Final

__all__ = ["StoreCode", "code_of"]


class StoreCode(StrEnum):
    """Why a store cannot be read or written. New codes may be added; a code never changes its meaning."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> StoreCode:
        """Create a member, with its description."""
        code = str.__new__(cls, value)
        code._value_ = value
        code.meaning = meaning
        return code

    NOT_PERMITTED = "not-permitted", "this user may not read or write it"
    NO_ANSWER = "no-answer", "the file system or the server does not answer"
    # directories
    MISSING = "missing", "the directory does not exist"
    NOT_A_DIRECTORY = "not-a-directory", "something else has the path of the directory"
    CIRCULAR_LINK = "circular-link", "the path is a circular symbolic link"
    EMPTIED = "emptied", "the directory became empty by a mount or an unmount"
    NO_WATCHES = "no-watches", "a limit of inotify, or of open files, is reached"
    SYSTEM_ERROR = "system-error", "the system returned another error: see `errno`"
    # etcd
    UNREACHABLE = "unreachable", "no etcd listens there"
    NAME_UNKNOWN = "name-unknown", "the name of the host cannot be resolved"
    CONNECTION_LOST = "connection-lost", "the connection was lost or closed"
    TLS_REQUIRED = "tls-required", "etcd closed the connection: it may require TLS"
    TLS_UNUSED = "tls-unused", "etcd does not use TLS"
    CERTIFICATE_UNTRUSTED = "certificate-untrusted", "the certificate of etcd is not signed by a trusted CA"
    CERTIFICATE_NAME = "certificate-name", "the certificate of etcd is for another name"
    CERTIFICATE_REQUIRED = "certificate-required", "etcd may require a client certificate"
    CERTIFICATE_INVALID = "certificate-invalid", "a certificate or key file is not in PEM format"
    FILE_UNREADABLE = "file-unreadable", "a file that the URL names cannot be read"
    USER_REQUIRED = "user-required", "etcd requires a user and a password"
    WRONG_PASSWORD = "wrong-password", "the user or the password is wrong"
    LOGIN_EXPIRED = "login-expired", "the login has expired"
    NO_QUORUM = "no-quorum", "too few members of the cluster are up"
    FULL = "full", "the database has reached its quota"
    TOO_LARGE = "too-large", "a message or a number of keys exceeds a limit"
    CHANGED_TOO_FAST = "changed-too-fast", "other clients write, or compact the history, faster than it can be read"
    AUTH_OFF = "auth-off", "authentication is disabled, so that no user can log in"
    LEASE_GONE = "lease-gone", "the lease has ended"
    REFUSED = "refused", "etcd has refused it for another reason"
    UNFORESEEN = "unforeseen", "an error in vethlib"
    OTHER = "other", "anything else"


_OF_ERRNO: Final = {
    errno.ENOENT: StoreCode.MISSING,
    errno.ENOTDIR: StoreCode.NOT_A_DIRECTORY,
    errno.ELOOP: StoreCode.CIRCULAR_LINK,
    errno.EACCES: StoreCode.NOT_PERMITTED,
    errno.EPERM: StoreCode.NOT_PERMITTED,
    errno.EROFS: StoreCode.NOT_PERMITTED,
    errno.ETIMEDOUT: StoreCode.NO_ANSWER,
}


def code_of(number: int | None) -> StoreCode:
    """Return the code for an error of the system, given its errno."""
    return _OF_ERRNO.get(number, StoreCode.SYSTEM_ERROR) if number else StoreCode.OTHER
