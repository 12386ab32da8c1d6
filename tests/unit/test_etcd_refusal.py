"""Errors of gRPC and etcd are turned into messages with a cure. The texts are those of gRPC 1.60 to 1.80."""

from __future__ import annotations

import pytest

from vethlib.agent.stores.etcd.refusal import AuthOff, Compacted, Denied, LeaseGone, Silent, TooLarge, refused
from vethlib.agent.stores.protocol import StoreError

CONNECT = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: "
UNAVAILABLE = "failed to connect to all addresses; last error: UNAVAILABLE: ipv4:127.0.0.1:1: "


@pytest.mark.parametrize(
    ("code", "details", "words", "meaning"),
    [
        (
            "UNAVAILABLE",
            f"{CONNECT}Failed to connect to remote host: Connection refused",
            "connection refused",
            "unreachable",
        ),
        ("UNAVAILABLE", f"{UNAVAILABLE}Socket closed", "closed the connection: it may require TLS", "tls-required"),
        ("UNAVAILABLE", "Socket closed", "the connection was lost", "connection-lost"),
        ("UNAVAILABLE", "recvmsg:Connection reset by peer", "the connection was lost", "connection-lost"),
        ("UNAVAILABLE", "GOAWAY received; Error code: 11", "the connection was lost", "connection-lost"),
        ("UNAVAILABLE", "errors resolving http://nowhere: [field:…]", "its name cannot be resolved", "name-unknown"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", "no answer", "no-answer"),
        ("UNAVAILABLE", "ping timeout", "no answer", "no-answer"),
        ("UNAVAILABLE", "keepalive watchdog timeout", "no answer", "no-answer"),
        ("UNAVAILABLE", "etcdserver: no leader", "it has lost its leader", "no-quorum"),
        ("UNAVAILABLE", "etcdserver: request timed out", "too few members of the cluster are up", "no-quorum"),
        (
            "INVALID_ARGUMENT",
            "etcdserver: authentication failed, invalid user ID or password",
            "wrong user or password",
            "wrong-password",
        ),
        ("INVALID_ARGUMENT", "etcdserver: user name is empty", "write USER@ before the host", "user-required"),
        ("UNAUTHENTICATED", "etcdserver: invalid auth token", "the login has expired", "login-expired"),
        (
            "PERMISSION_DENIED",
            "etcdserver: permission denied",
            "grant its role the keys below /vnf-agent/",
            "not-permitted",
        ),
        ("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded", "NOSPACE", "full"),
        ("INVALID_ARGUMENT", "etcdserver: request is too large", "--max-request-bytes", "too-large"),
        ("RESOURCE_EXHAUSTED", "grpc: received message larger than max (3 vs. 2)", "--max-request-bytes", "too-large"),
        ("NOT_FOUND", "etcdserver: requested lease not found", "the lease has ended", "lease-gone"),
        ("UNKNOWN", "etcdserver: something new", "something new", "refused"),
        ("UNKNOWN", "", "unknown", "refused"),
    ],
)
def test_a_refusal_is_told_in_words_and_by_a_code(code: str, details: str, words: str, meaning: str) -> None:
    error = refused("here:2379", code, details, tls=False)
    assert str(error) == f"here:2379: {error.reason}"
    assert words in error.reason
    assert error.code == meaning


@pytest.mark.parametrize(
    ("details", "words", "meaning"),
    [
        (
            f"{CONNECT}Ssl handshake failed: SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED",
            "give the CA's file as cacert",
            "certificate-untrusted",
        ),
        (f"{CONNECT}Hostname Verification Check failed.", "give the name as server-name=NAME", "certificate-name"),
        (f"{CONNECT}Handshake read failed", "it does not use TLS: leave out tls, cacert and cert", "tls-unused"),
        (f"{CONNECT}Unwrap failed", "it may require a client certificate (cert=FILE&key=FILE)", "certificate-required"),
        ("Failed to create security handshaker", "certificates and a key in PEM", "certificate-invalid"),
        (f"{UNAVAILABLE}Socket closed", "the connection was lost", "connection-lost"),
    ],
)
def test_what_tls_says_is_told_with_the_option_that_cures_it(details: str, words: str, meaning: str) -> None:
    error = refused("here:2379", "UNAVAILABLE", details, tls=True)
    assert words in error.reason
    assert error.code == meaning


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        ("PERMISSION_DENIED", "etcdserver: permission denied", Denied),
        ("INVALID_ARGUMENT", "etcdserver: authentication failed, invalid user ID or password", Denied),
        ("INVALID_ARGUMENT", "etcdserver: user name is empty", Denied),
        ("INVALID_ARGUMENT", "etcdserver: something that is yet to be refused", Denied),
        ("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded", Denied),
        ("RESOURCE_EXHAUSTED", "etcdserver: too many requests", Denied),
        ("INVALID_ARGUMENT", "etcdserver: request is too large", TooLarge),
        ("RESOURCE_EXHAUSTED", "grpc: received message larger than max (3 vs. 2)", TooLarge),
        ("INVALID_ARGUMENT", "etcdserver: too many operations in txn request", TooLarge),
        ("NOT_FOUND", "etcdserver: requested lease not found", LeaseGone),
        ("OUT_OF_RANGE", "etcdserver: mvcc: required revision has been compacted", Compacted),
        ("FAILED_PRECONDITION", "etcdserver: authentication is not enabled", AuthOff),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", Silent),
        ("UNAVAILABLE", "ping timeout", Silent),
        # Errors that end a connection; another connection may do better.
        ("UNAVAILABLE", "etcdserver: no leader", StoreError),
        ("UNAVAILABLE", "etcdserver: request timed out", StoreError),
        ("UNAUTHENTICATED", "etcdserver: invalid auth token", StoreError),
        ("INVALID_ARGUMENT", "etcdserver: revision of auth store is old", StoreError),
        ("UNAVAILABLE", "recvmsg:Connection reset by peer", StoreError),
    ],
)
def test_what_follows_from_a_refusal_is_its_class(code: str, details: str, kind: type[StoreError]) -> None:
    assert type(refused("here:2379", code, details, tls=False)) is kind


def test_who_has_a_user_and_was_not_asked_for_it_logs_in_anew() -> None:
    error = refused("here:2379", "INVALID_ARGUMENT", "etcdserver: user name is empty", tls=False, user=True)
    assert type(error) is StoreError
    assert error.code == "login-expired"
