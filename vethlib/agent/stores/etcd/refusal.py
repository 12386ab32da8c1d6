"""From what etcd or gRPC says of a failed call to an error with words for an operator, and the cure where one is known.

The texts of etcd are those of its ``etcdserver/api/v3rpc/rpctypes/error.go``; those of gRPC are no contract, and what
is not known is told as it came.
"""

from __future__ import annotations

import re

from vethlib.agent.stores.protocol import StoreError

__all__ = [
    "AuthOff",
    "Compacted",
    "Denied",
    "LeaseGone",
    "Silent",
    "explain",
    "is_final",
    "is_silence",
    "refused",
]


class Denied(StoreError):
    """etcd has answered, and does not allow it: to try again, or elsewhere, is of no use."""


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
_TEXTS: tuple[tuple[str, str], ...] = (
    # The first one counts whose words are in what was said.
    ("CERTIFICATE_VERIFY_FAILED", _NOT_SIGNED),
    ("Hostname Verification", "its certificate is for another name: give the name as server-name=NAME"),
    ("Handshake read failed", "it speaks no TLS: leave out tls, cacert and cert"),
    ("Unwrap failed", _NO_CLIENT),
    ("CERTIFICATE_REQUIRED", _NO_CLIENT),
    ("Failed to create security handshaker", "the files of cacert, cert and key are no certificates and key in PEM"),
    ("invalid user ID or password", "wrong user or password"),
    ("user name is empty", "it wants a user and a password: write USER@ before the host, and password-file=FILE"),
    ("invalid auth token", "the login is not valid any more"),
    ("permission denied", "this user may not do that: grant its role the keys below /vnf-agent/"),
    ("Deadline Exceeded", "no answer"),
    ("ping timeout", "no answer"),
    ("keepalive watchdog", "no answer"),
    ("no leader", "it has lost its leader: too few members of the cluster are up"),
    ("request timed out", "no answer from the other members: too few of the cluster are up"),
    ("requested lease not found", "the lease has ended"),
    ("database space exceeded", "it is full (alarm NOSPACE): compact and defragment it, then disarm the alarm"),
    ("request is too large", _TOO_LARGE),
    ("received message larger than max", _TOO_LARGE),
)
# Before TLS is known to be wanted, its absence looks like this: the server hangs up on what it cannot read.
_HUNG_UP = "closed the connection: it may want TLS (cacert=FILE, or tls=1)"
# Where exactly it was noticed differs from one attempt to the next.
_LOST = ("Connection reset", "Socket closed", "Broken pipe", "GOAWAY")
_KINDS: dict[str, type[StoreError]] = {
    "requested lease not found": LeaseGone,
    "authentication is not enabled": AuthOff,
    "has been compacted": Compacted,
}
_LAST = re.compile(r".*last error: (?:[A-Z_]+: )?(?:ipv[46]:\S+?: )?(?:connect failed: addr: \S+ error: )?")


def explain(code: str, details: str, *, tls: bool) -> str:
    """In words; `tls` is whether it was spoken."""
    for said, words in _TEXTS:
        if said in details:
            return words
    if not tls and "failed to connect" in details and "Socket closed" in details:
        return _HUNG_UP
    if any(said in details for said in _LOST):
        return "the connection was lost"
    text = _LAST.sub("", details).removeprefix("Failed to connect to remote host: ").removeprefix("etcdserver: ")
    if "errors resolving" in details:
        return "its name cannot be resolved"
    return f"{text[:1].lower()}{text[1:]}".rstrip(".") or code.lower().replace("_", " ")


def is_silence(details: str) -> bool:
    """Whether nothing was said at all."""
    return any(said in details for said in ("Deadline Exceeded", "ping timeout", "keepalive watchdog"))


def is_final(code: str, details: str) -> bool:
    """Whether it was understood and refused, so that asking again, or another member, changes nothing."""
    return code in ("PERMISSION_DENIED", "INVALID_ARGUMENT") or any(
        said in details for said in ("request is too large", "received message larger than max")
    )


def refused(endpoint: str, code: str, details: str, *, tls: bool) -> StoreError:
    """The error for what was said at an endpoint."""
    reason = explain(code, details, tls=tls)
    kind = next((kind for said, kind in _KINDS.items() if said in details), StoreError)
    if is_silence(details):
        kind = Silent
    elif is_final(code, details):
        kind = Denied
    return kind(f"{endpoint}: {reason}", path=endpoint, reason=reason)
