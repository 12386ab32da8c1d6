"""Map the errors of etcd and gRPC to exceptions with messages for operators, and with a cure if one is known.

The texts of etcd are those of its ``etcdserver/api/v3rpc/rpctypes/error.go``; those of gRPC are not a contract. An
unknown text is passed on.
"""

from __future__ import annotations

import os
import re

from vethlib.agent.stores.protocol import StoreError
from vethlib.agent.stores.storecode import StoreCode
from vethlib.errors import VethError

# By default, gRPC's C core also reports failed handshakes on stderr; the exceptions are enough.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
try:
    import grpc
except ImportError as error:  # the extra [etcd] installs it
    raise VethError(f"etcd needs grpcio ({error}): pip install 'vethlib[etcd]'") from None

__all__ = ["FAILURES", "AuthOff", "Compacted", "Denied", "LeaseGone", "Silent", "TooLarge", "grpc", "refused"]

FAILURES = (grpc.RpcError, ValueError)
"""The exceptions of a call: ValueError if another thread has closed its channel."""


class Denied(StoreError):
    """etcd has refused a request. Repeating it at once, or asking another member, is of no use."""


class TooLarge(Denied):
    """A message exceeds a limit of etcd or of this client; `details` is the text of the error."""

    details = ""


class AuthOff(StoreError):
    """Authentication is disabled in etcd, so no user can log in."""


class Silent(StoreError):
    """No answer came in time."""


class LeaseGone(StoreError):
    """The lease has ended, and its keys are deleted."""


class Compacted(StoreError):
    """The requested revision has been compacted."""


_NOT_SIGNED = "its certificate is not signed by a CA that this host trusts: give the CA's file as cacert=FILE"
_NO_CLIENT = (
    "it ended the TLS handshake: it may require a client certificate (cert=FILE&key=FILE) of a CA that it trusts"
)
_TOO_LARGE = "the value is too large for it (--max-request-bytes)"
_WHO = "it requires a user and a password: write USER@ before the host, and password-file=FILE"
_WRONG = "wrong user or password: check USER@ before the host, and the file of password-file"
_OLD_LOGIN = "the login has expired"
_FEW = "too few members of the cluster are up"
_REASONS: tuple[tuple[str, str, type[StoreError], StoreCode], ...] = (
    # The first entry whose text is part of the details counts. A plain StoreError ends the connection; the next one may
    # succeed.
    ("CERTIFICATE_VERIFY_FAILED", _NOT_SIGNED, StoreError, StoreCode.CERTIFICATE_UNTRUSTED),
    (
        "Hostname Verification",
        "its certificate is for another name: give the name as server-name=NAME",
        StoreError,
        StoreCode.CERTIFICATE_NAME,
    ),
    ("Handshake read failed", "it does not use TLS: leave out tls, cacert and cert", StoreError, StoreCode.TLS_UNUSED),
    ("Unwrap failed", _NO_CLIENT, StoreError, StoreCode.CERTIFICATE_REQUIRED),
    ("CERTIFICATE_REQUIRED", _NO_CLIENT, StoreError, StoreCode.CERTIFICATE_REQUIRED),
    (
        "create security handshaker",
        "the files of cacert, cert and key must be certificates and a key in PEM",
        StoreError,
        StoreCode.CERTIFICATE_INVALID,
    ),
    ("Connection refused", "connection refused: no etcd listens there", StoreError, StoreCode.UNREACHABLE),
    ("invalid user ID or password", _WRONG, Denied, StoreCode.WRONG_PASSWORD),
    ("user name is empty", _WHO, Denied, StoreCode.USER_REQUIRED),
    ("invalid auth token", _OLD_LOGIN, StoreError, StoreCode.LOGIN_EXPIRED),
    ("revision of auth store is old", _OLD_LOGIN, StoreError, StoreCode.LOGIN_EXPIRED),
    (
        "permission denied",
        "this user is not permitted to do that: grant its role the keys below /vnf-agent/",
        Denied,
        StoreCode.NOT_PERMITTED,
    ),
    ("Deadline Exceeded", "no answer", Silent, StoreCode.NO_ANSWER),
    ("ping timeout", "no answer", Silent, StoreCode.NO_ANSWER),
    ("keepalive watchdog", "no answer", Silent, StoreCode.NO_ANSWER),
    ("no leader", f"it has lost its leader: {_FEW}", StoreError, StoreCode.NO_QUORUM),
    ("request timed out", f"no answer from the other members: {_FEW}", StoreError, StoreCode.NO_QUORUM),
    ("requested lease not found", "the lease has ended", LeaseGone, StoreCode.LEASE_GONE),
    ("authentication is not enabled", "authentication is disabled", AuthOff, StoreCode.AUTH_OFF),
    ("has been compacted", "the revision has been compacted", Compacted, StoreCode.CHANGED_TOO_FAST),
    (
        "space exceeded",
        "it is full (alarm NOSPACE): compact and defragment it, then disarm the alarm",
        Denied,
        StoreCode.FULL,
    ),
    ("request is too large", _TOO_LARGE, TooLarge, StoreCode.TOO_LARGE),
    (
        "CLIENT: Received message larger than max",
        "its answer exceeds the limit for answers",
        TooLarge,
        StoreCode.TOO_LARGE,
    ),
    ("received message larger than max", _TOO_LARGE, TooLarge, StoreCode.TOO_LARGE),
    (
        "trying to send message larger than max",
        "its answer exceeds its own limit for messages",
        TooLarge,
        StoreCode.TOO_LARGE,
    ),
    ("too many operations", "it accepts fewer operations at once (--max-txn-ops)", TooLarge, StoreCode.TOO_LARGE),
)
_ANSWERED = ("PERMISSION_DENIED", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION")
# A server that requires TLS just closes a connection without it.
_HUNG_UP = "closed the connection: it may require TLS (cacert=FILE, or tls=1)"
# A lost connection has different texts, depending on where it is noticed.
_LOST = ("Connection reset", "Socket closed", "Broken pipe", "GOAWAY")
_LAST = re.compile(r".*last error: (?:[A-Z_]+: )?(?:ipv[46]:\S+?: )?(?:connect failed: addr: \S+ error: )?")


def refused(endpoint: str, code: str, details: str, *, tls: bool, user: bool = False) -> StoreError:
    """Return the error for a refusal of an endpoint; `tls`: whether TLS was used, `user`: whether a user logged in."""
    reason, kind, meaning = _understood(code, details, tls=tls)
    if user and meaning is StoreCode.USER_REQUIRED:  # authentication was enabled after the login
        reason, kind, meaning = _OLD_LOGIN, StoreError, StoreCode.LOGIN_EXPIRED
    error = kind(f"{endpoint}: {reason}", path=endpoint, reason=reason, code=meaning)
    if isinstance(error, TooLarge):
        error.details = details
    return error


def _understood(code: str, details: str, *, tls: bool) -> tuple[str, type[StoreError], StoreCode]:
    for text, reason, kind, meaning in _REASONS:
        if text in details:
            return reason, kind, meaning
    if not tls and "failed to connect" in details and "Socket closed" in details:
        return _HUNG_UP, StoreError, StoreCode.TLS_REQUIRED
    if any(text in details for text in _LOST):
        return "the connection was lost", StoreError, StoreCode.CONNECTION_LOST
    if "errors resolving" in details:
        return "its name cannot be resolved", StoreError, StoreCode.NAME_UNKNOWN
    text = _LAST.sub("", details).removeprefix("Failed to connect to remote host: ").removeprefix("etcdserver: ")
    reason = f"{text[:1].lower()}{text[1:]}".rstrip(".") or code.lower().replace("_", " ")
    return reason, Denied if code in _ANSWERED else StoreError, StoreCode.REFUSED
