"""The spelling of namespace references, and the errors for wrong ones."""

from __future__ import annotations

import pickle

import pytest

from tests.refusing import raises
from vethlib.errors import InvalidValue, NetnsNotFound
from vethlib.ns import Reference, open_fd, open_owned, parse


@pytest.mark.parametrize(
    ("ref", "kind", "value", "canonical"),
    [
        ("", "home", "", ""),
        (None, "home", "", ""),
        ("blue", "netns", "blue", "netns:blue"),
        ("netns:blue", "netns", "blue", "netns:blue"),
        ("pid", "netns", "pid", "netns:pid"),
        ("netns:a:b", "netns", "a:b", "netns:a:b"),
        ("blaue Straße", "netns", "blaue Straße", "netns:blaue Straße"),
        ("pid:42", "pid", "42", "pid:42"),
        ("pid:0042", "pid", "42", "pid:42"),
        ("path:/proc/42/task/43/ns/net", "path", "/proc/42/task/43/ns/net", "path:/proc/42/task/43/ns/net"),
        ("fd:0", "fd", "0", "fd:0"),
        ("fd:7", "fd", "7", "fd:7"),
        ("microservice:vnf1", "microservice", "vnf1", "microservice:vnf1"),
        ("microservice:a/b:c", "microservice", "a/b:c", "microservice:a/b:c"),
    ],
)
def test_a_reference_has_one_canonical_text(ref: str | None, kind: str, value: str, canonical: str) -> None:
    reference = parse(ref)
    assert reference == Reference(kind, value)
    assert str(reference) == canonical
    assert parse(str(reference)) == reference


@pytest.mark.parametrize(
    ("ref", "hint"),
    [
        ("netns:", "must have something after 'netns:'"),
        ("pid:", "must have something after 'pid:'"),
        ("path:", "must have something after 'path:'"),
        ("fd:", "must have something after 'fd:'"),
        ("microservice:", "must have something after 'microservice:'"),
        ("docker:vnf1", '"pid:42"'),
        (":blue", "unknown kind of reference ''"),
        ("a/b", 'for a file write "path:a/b"'),
        ("/run/netns/blue", 'write "path:/run/netns/blue"'),
        ("netns:a/b", 'not contain "/"'),
        (".", 'must not be "."'),
        ("netns:..", 'must not be "." or ".."'),
        ("a\0b", "NUL"),
        ("path:/a\0b", "NUL"),
        ("n" * 256, "at most 255 bytes"),
        ("ß" * 128, "at most 255 bytes"),
        ("\ud800", "must be encodable"),
        ("pid:abc", "decimal digits"),
        ("pid:-1", "decimal digits"),
        ("pid: 1", "decimal digits"),
        ("pid:１", "decimal digits"),
        ("pid:2147483648", "decimal digits"),
        ("pid:0", "no process 0"),
        ("pid:000", "no process 0"),
        ("fd:-1", "decimal digits"),
        ("fd:x", "decimal digits"),
        ("path:run/netns/blue", "absolute path"),
        (7, 'use "" (home), "blue"'),
        (b"blue", "not a namespace reference"),
    ],
)
def test_a_bad_spelling_names_the_value_and_what_would_do(ref: str, hint: str) -> None:
    for use in (parse, open_fd, open_owned):
        with pytest.raises(InvalidValue) as caught:
            use(ref)
        assert caught.value.field == "netns"
        assert caught.value.value == ref
        assert hint in caught.value.hint


def test_a_name_of_255_bytes_is_a_name() -> None:
    assert parse("n" * 255).value == "n" * 255


def test_a_reference_is_a_value() -> None:
    assert len({parse("blue"), parse("netns:blue")}) == 1
    assert pickle.loads(pickle.dumps(parse("pid:42"))) == parse("pid:42")
    with pytest.raises(AttributeError):
        parse("blue").kind = "pid"  # type: ignore[misc]


def test_a_label_needs_a_resolver() -> None:
    with raises(NetnsNotFound, netns="microservice:vnf1") as caught:
        open_fd("microservice:vnf1")
    assert caught.value.netns == "microservice:vnf1"


def test_what_a_resolver_says_is_checked_like_any_reference() -> None:
    with raises(InvalidValue, field="netns", value="pid:none"):
        open_fd("microservice:vnf1", lambda label: "pid:none")
    with raises(InvalidValue, field="netns"):
        open_fd("microservice:vnf1", lambda label: "microservice:vnf2")


def test_what_a_resolver_raises_is_what_the_caller_gets() -> None:
    def resolver(label: str) -> str:
        raise NetnsNotFound("nowhere", netns=label)

    with raises(NetnsNotFound, netns="vnf1"):
        open_fd("microservice:vnf1", resolver)
