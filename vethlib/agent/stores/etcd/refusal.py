"""From what etcd or gRPC says of a failed call to an error with words for an operator, and the cure where one is known.

The texts of etcd are those of its ``etcdserver/api/v3rpc/rpctypes/error.go``; those of gRPC are no contract, and what
is not known is told as it came.
"""

from __future__ import annotations

import re

from vethlib.agent.stores.protocol import StoreError

__all__ = ["AuthOff", "Compacted", "Denied", "LeaseGone", "Silent", "TooLarge", "refused"]


class Denied(StoreError):
    """etcd has answered, and does not do it: to ask again at once, or another member, is of no use."""


class TooLarge(Denied):
    """It is more than etcd takes at once."""


class AuthOff(StoreError):
    """etcd lets in everybody, and so nobody by name."""


class Silent(StoreError):
    """No answer came in time."""


class LeaseGone(StoreError):
    """There is no such lease any more, and nothing of what was bound to it."""


class Compacted(StoreError):
    """The revision that was asked for is history that etcd has given up."""


_NOT_SIGNED = "its certificate is not signed by a CA that is known here: give that CA's file as cacert=FILE"
_NO_CLIENT = "it ended the TLS handshake: it may want a client's certificate (cert=FILE&key=FILE) of a CA that it knows"
_TOO_LARGE = "the value is too large for it (--max-request-bytes)"
_WHO = "it wants a user and a password: write USER@ before the host, and password-file=FILE"
_OLD_LOGIN = "the login is not valid any more"
_FEW = "too few members of the cluster are up"
_SAID: tuple[tuple[str, str, type[StoreError]], ...] = (
    # The first one counts whose words are in what was said. A plain StoreError ends a connection, and the next one may
    # do better.
    ("CERTIFICATE_VERIFY_FAILED", _NOT_SIGNED, StoreError),
    ("Hostname Verification", "its certificate is for another name: give the name as server-name=NAME", StoreError),
    ("Handshake read failed", "it speaks no TLS: leave out tls, cacert and cert", StoreError),
    ("Unwrap failed", _NO_CLIENT, StoreError),
    ("CERTIFICATE_REQUIRED", _NO_CLIENT, StoreError),
    ("create security handshaker", "the files of cacert, cert and key are no certificates and key in PEM", StoreError),
    ("Connection refused", "connection refused: no etcd listens there", StoreError),
    ("invalid user ID or password", "wrong user or password", Denied),
    ("user name is empty", _WHO, Denied),
    ("invalid auth token", _OLD_LOGIN, StoreError),
    ("revision of auth store is old", _OLD_LOGIN, StoreError),
    ("permission denied", "this user may not do that: grant its role the keys below /vnf-agent/", Denied),
    ("Deadline Exceeded", "no answer", Silent),
    ("ping timeout", "no answer", Silent),
    ("keepalive watchdog", "no answer", Silent),
    ("no leader", f"it has lost its leader: {_FEW}", StoreError),
    ("request timed out", f"no answer from the other members: {_FEW}", StoreError),
    ("requested lease not found", "the lease has ended", LeaseGone),
    ("authentication is not enabled", "it asks nobody who he is", AuthOff),
    ("has been compacted", "that history was given up", Compacted),
    ("space exceeded", "it is full (alarm NOSPACE): compact and defragment it, then disarm the alarm", Denied),
    ("request is too large", _TOO_LARGE, TooLarge),
    ("received message larger than max", _TOO_LARGE, TooLarge),
    ("too many operations", "it takes fewer operations at once (--max-txn-ops)", TooLarge),
)
_ANSWERED = ("PERMISSION_DENIED", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION")
# Before TLS is known to be wanted, its absence looks like this: the server hangs up on what it cannot read.
_HUNG_UP = "closed the connection: it may want TLS (cacert=FILE, or tls=1)"
# Where exactly it was noticed differs from one attempt to the next.
_LOST = ("Connection reset", "Socket closed", "Broken pipe", "GOAWAY")
_LAST = re.compile(r".*last error: (?:[A-Z_]+: )?(?:ipv[46]:\S+?: )?(?:connect failed: addr: \S+ error: )?")


def refused(endpoint: str, code: str, details: str, *, tls: bool, user: bool = False) -> StoreError:
    """The error for what was said at an endpoint; `tls` is whether it was spoken, `user` whether somebody logged in."""
    reason, kind = _understood(code, details, tls=tls)
    if user and reason == _WHO:  # who is to log in, and could not, since nobody was asked to then
        reason, kind = _OLD_LOGIN, StoreError
    return kind(f"{endpoint}: {reason}", path=endpoint, reason=reason)


def _understood(code: str, details: str, *, tls: bool) -> tuple[str, type[StoreError]]:
    for said, words, kind in _SAID:
        if said in details:
            return words, kind
    if not tls and "failed to connect" in details and "Socket closed" in details:
        return _HUNG_UP, StoreError
    if any(said in details for said in _LOST):
        return "the connection was lost", StoreError
    if "errors resolving" in details:
        return "its name cannot be resolved", StoreError
    text = _LAST.sub("", details).removeprefix("Failed to connect to remote host: ").removeprefix("etcdserver: ")
    words = f"{text[:1].lower()}{text[1:]}".rstrip(".") or code.lower().replace("_", " ")
    return words, Denied if code in _ANSWERED else StoreError
