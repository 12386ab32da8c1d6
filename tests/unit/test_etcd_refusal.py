"""From what gRPC and etcd say of a failed call to words with a cure. The texts are those of gRPC 1.60 to 1.80."""

from __future__ import annotations

import pytest

from vethlib.agent.stores.etcd.refusal import explain, is_final, is_silence

CONNECT = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: "
UNAVAILABLE = "failed to connect to all addresses; last error: UNAVAILABLE: ipv4:127.0.0.1:1: "


@pytest.mark.parametrize(
    ("code", "details", "words"),
    [
        ("UNAVAILABLE", f"{CONNECT}Failed to connect to remote host: Connection refused", "connection refused"),
        ("UNAVAILABLE", f"{UNAVAILABLE}Socket closed", "closed the connection: it may want TLS"),
        ("UNAVAILABLE", "Socket closed", "the connection was lost"),
        ("UNAVAILABLE", "recvmsg:Connection reset by peer", "the connection was lost"),
        ("UNAVAILABLE", "GOAWAY received; Error code: 11", "the connection was lost"),
        ("UNAVAILABLE", "errors resolving http://nowhere: [field:…]", "its name cannot be resolved"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", "no answer"),
        ("UNAVAILABLE", "ping timeout", "no answer"),
        ("UNAVAILABLE", "keepalive watchdog timeout", "no answer"),
        ("UNAVAILABLE", "etcdserver: no leader", "it has lost its leader"),
        ("UNAVAILABLE", "etcdserver: request timed out", "too few of the cluster are up"),
        (
            "INVALID_ARGUMENT",
            "etcdserver: authentication failed, invalid user ID or password",
            "wrong user or password",
        ),
        ("INVALID_ARGUMENT", "etcdserver: user name is empty", "write USER@ before the host"),
        ("UNAUTHENTICATED", "etcdserver: invalid auth token", "the login is not valid any more"),
        ("PERMISSION_DENIED", "etcdserver: permission denied", "grant its role the keys below /vnf-agent/"),
        ("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded", "NOSPACE"),
        ("INVALID_ARGUMENT", "etcdserver: request is too large", "--max-request-bytes"),
        ("RESOURCE_EXHAUSTED", "grpc: received message larger than max (3 vs. 2)", "--max-request-bytes"),
        ("NOT_FOUND", "etcdserver: requested lease not found", "the lease has ended"),
        ("UNKNOWN", "etcdserver: something new", "something new"),
        ("UNKNOWN", "", "unknown"),
    ],
)
def test_a_refusal_is_told_in_words(code: str, details: str, words: str) -> None:
    assert words in explain(code, details, tls=False)


@pytest.mark.parametrize(
    ("details", "words"),
    [
        (f"{CONNECT}Ssl handshake failed: SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED", "give that CA's file as cacert"),
        (f"{CONNECT}Hostname Verification Check failed.", "give the name as server-name=NAME"),
        (f"{CONNECT}Handshake read failed", "it speaks no TLS: leave out tls, cacert and cert"),
        (f"{CONNECT}Unwrap failed", "it may want a client's certificate (cert=FILE&key=FILE)"),
        ("Failed to create security handshaker", "no certificates and key in PEM"),
        (f"{UNAVAILABLE}Socket closed", "the connection was lost"),
    ],
)
def test_what_tls_says_is_told_with_the_option_that_cures_it(details: str, words: str) -> None:
    assert words in explain("UNAVAILABLE", details, tls=True)


def test_only_what_was_understood_and_refused_is_final() -> None:
    assert is_final("PERMISSION_DENIED", "etcdserver: permission denied")
    assert is_final("INVALID_ARGUMENT", "etcdserver: authentication failed, invalid user ID or password")
    assert is_final("RESOURCE_EXHAUSTED", "grpc: received message larger than max (3 vs. 2)")
    assert not is_final("UNAVAILABLE", "etcdserver: no leader")
    assert not is_final("DEADLINE_EXCEEDED", "Deadline Exceeded")
    assert not is_final("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded")


def test_silence_is_told_from_an_answer() -> None:
    assert is_silence("Deadline Exceeded")
    assert is_silence("ping timeout")
    assert not is_silence("etcdserver: request timed out")
