"""The meaning of an etcd URL; and no form in which it is shown has the password."""

from __future__ import annotations

import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vethlib.agent.stores.etcd.address import Address, masked, masked_in, parse_url
from vethlib.errors import InvalidValue


@pytest.mark.parametrize(
    ("hosts", "endpoints"),
    [
        ("etcd1", ["etcd1:2379"]),
        ("etcd1:1", ["etcd1:1"]),
        ("etcd1:65535/", ["etcd1:65535"]),
        ("10.0.0.1,10.0.0.2:2380,c", ["10.0.0.1:2379", "10.0.0.2:2380", "c:2379"]),
        ("[::1]", ["[::1]:2379"]),
        ("[2001:db8::1]:2380,[::2]", ["[2001:db8::1]:2380", "[::2]:2379"]),
    ],
)
def test_each_member_has_a_port_which_may_be_left_out(hosts: str, endpoints: list[str]) -> None:
    address = parse_url(f"etcd://{hosts}")
    assert list(address.endpoints) == endpoints
    assert address.url == f"etcd://{hosts}"


@pytest.mark.parametrize(
    ("userinfo", "user", "password"),
    [
        ("vethlib:secret", "vethlib", "secret"),
        ("vethlib:", "vethlib", ""),
        ("a%40b:p%3Fq%25%2F%3a%C3%A9", "a@b", "p?q%/:é"),
        ("u:a:b@c/d", "u", "a:b@c/d"),
        ("u:a+b c", "u", "a+b c"),
    ],
)
def test_a_user_and_a_password_stand_before_the_host(userinfo: str, user: str, password: str) -> None:
    address = parse_url(f"etcd://{userinfo}@h:1")
    assert (address.user, address.password) == (user, password)
    assert address.endpoints == ("h:1",)
    assert address.url == f"etcd://{userinfo.split(':')[0]}:…@h:1"


def test_a_password_may_be_in_a_file() -> None:
    address = parse_url("etcd://u@h?password-file=/etc/pw")
    assert (address.user, address.password, address.password_file) == ("u", "", "/etc/pw")
    assert address.url == "etcd://u@h?password-file=/etc/pw"


@pytest.mark.parametrize(
    ("query", "tls"),
    [
        ("", False),
        ("?tls=1", True),
        ("?tls=0", False),
        ("?cacert=ca.pem", True),
        ("?cert=c&key=k", True),
        ("?server-name=etcd", True),
        ("?cacert=ca.pem&tls=1", True),
        ("?lease=5", False),
    ],
)
def test_tls_is_spoken_where_something_of_it_is_given(query: str, tls: bool) -> None:
    assert parse_url(f"etcd://h{query}").tls is tls


def test_every_option_is_read() -> None:
    address = parse_url("etcd://h?cacert=a&cert=b&key=%2Fc%20d&server-name=e&lease=30&heartbeat=2.5")
    assert (address.cacert, address.cert, address.key, address.server_name) == ("a", "b", "/c d", "e")
    assert (address.lease, address.heartbeat) == (30, 2.5)


@pytest.mark.parametrize(
    ("url", "cure"),
    [
        ("etcd:", "must be etcd://HOST:PORT"),
        ("etcd://", "must be etcd://HOST:PORT"),
        ("etcd:h:1", "must be etcd://HOST:PORT"),
        ("etcd://h/path", "must be etcd://HOST:PORT"),
        ("etcd://@h", "must be etcd://HOST:PORT"),
        ("etcd://:p@h", "must be etcd://HOST:PORT"),
        ("etcd://u:p@", "must be etcd://HOST:PORT"),
        ("etcd://a,,b", "'' is not HOST:PORT"),
        ("etcd://:2379", "':2379' is not HOST:PORT"),
        ("etcd://::1", "is not HOST:PORT"),
        ("etcd://a b", "'a b' is not HOST:PORT"),
        ("etcd://h:0", "the port of h must be from 1 to 65535"),
        ("etcd://h:65536", "the port of h must be from 1 to 65535"),
        ("etcd://h:٣", "the port of h must be from 1 to 65535"),
        ("etcd://h:", "the port of h must be from 1 to 65535"),
        ("etcd://u@h", "has no password for u: add ?password-file=FILE, or write USER:PASSWORD@"),
        ("etcd://u:p@h?password-file=f", "has two passwords: keep the password-file"),
        ("etcd://h?password-file=f", "has a password-file but no user: write USER@ before the host"),
        ("etcd://h?cert=c", "must have both cert and key, or neither"),
        ("etcd://h?key=k", "must have both cert and key, or neither"),
        ("etcd://h?tls=0&cacert=c", "has tls=0 and certificates: leave one out"),
        ("etcd://h?tls=yes", "tls must be 1 or 0"),
        ("etcd://h?cacert=", "cacert must be the file of the CA that signed the server's certificate"),
        ("etcd://h?lease=9&cacert=a&lease=30", "has lease twice: leave one out"),
        ("etcd://h?lease=1", "lease must be whole seconds from 2 to 86400"),
        ("etcd://h?lease=2.5", "lease must be whole seconds from 2 to 86400"),
        ("etcd://h?heartbeat=nan", "heartbeat must be seconds from 0.1 to 3600"),
        ("etcd://h?lease=3", "has a lease of 3 s, which may end between heartbeats: it must be at least 4 s"),
        ("etcd://h?ca=c", "unknown option 'ca'; did you mean cacert?"),
        ("etcd://h?passwordfile=c", "unknown option 'passwordfile'; did you mean password-file?"),
        ("etcd://h?xyzzy", "unknown option 'xyzzy'; must be some of "),
    ],
)
def test_what_is_wrong_is_told_with_the_cure(url: str, cure: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        parse_url(url)
    assert (raised.value.field, raised.value.value) == ("--store", masked(url))
    assert cure in raised.value.hint


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("etcd://h:2379,[::1]:2379/?cacert=/a:b&lease=9", "etcd://h:2379,[::1]:2379/?cacert=/a:b&lease=9"),
        ("etcd://u@h?password-file=f", "etcd://u@h?password-file=f"),
        ("etcd://u:s3cret@h", "etcd://u:…@h"),
        ("etcd://u:s3c@ret@h", "etcd://u:…@h"),
        ("etcd://u:s3?c/r,et@h?lease=9", "etcd://u:…@h?lease=9"),
        ("etcd:/u:s3cret@h", "etcd:/u:…@h"),
        ("etcd:u:s3cret@h", "etcd:u:…@h"),
        ("http://u:s3cret@h", "http://u:…@h"),
        ("u:s3cret@h", "u:…@h"),
        ("etcd://u:s3cret", "etcd://u:…"),
        ("etcd://u:s3cret,h:2379", "etcd://u:…,h:2379"),
        ("etcd://u:s3c@h/r3t", "etcd://u:…@h/…"),
        ("etcd://u:s3c/r3t", "etcd://u:…/…"),
        ("etcd://u:s3c,r3t", "etcd://u:…,…"),
        ("etcd://h:1,u:s3c,r3t,i:2", "etcd://h:1,u:…,…,i:2"),
        ("etcd://u:s3c?r3t", "etcd://u:…?…"),
        ("etcd://u:s3c?tls=r3t", "etcd://u:…?tls=…"),
        ("etcd://u:s3c,r3t?lease=9&cert=r3t&", "etcd://u:…,…?lease=…&cert=…&"),
        ("etcd://u:s3c@h?tls=1", "etcd://u:…@h?tls=1"),
        ("etcd://h/path?x", "etcd://h/path?x"),
        ("etcd://u:s3cret@a,[::1],b.c:2379/", "etcd://u:…@a,[::1],b.c:2379/"),
        ("etcd://h?password=s3cret&lease=9", "etcd://h?password=…&lease=9"),
    ],
)
def test_a_url_is_shown_without_the_password_even_where_that_stands_in_a_wrong_place(url: str, shown: str) -> None:
    assert masked(url) == shown


_SECRET = st.text(st.characters(categories=("L", "N"), include_characters="@:/?&=#,%[] \n+"), min_size=1).map(
    lambda text: f"s3{text}cr3t"
)
_FORMS = st.sampled_from(
    [
        "etcd://user:{}@host:2379",
        "etcd://user:{}@host:2379,[::1]?lease=30&cacert=a",
        "etcd://user:{}@host?password-file=x",
        "etcd://user:{}@host:99999",
        "etcd://user:{}@host?nothing=x",
        "etcd://user:{}@",
        "etcd://:{}@host",
        "etcd:/user:{}@host",
        "etcd:user:{}@host",
        "user:{}@host",
    ]
)


_FORMS_WITHOUT_HOST = st.sampled_from(["etcd://user:{}", "etcd:/user:{}", "etcd:user:{}", "etcd://user:{},host:2379"])


@given(
    st.tuples(_SECRET, _FORMS)
    # Without a host, the part after an '@' in a password is taken for one.
    | st.tuples(_SECRET.filter(lambda secret: "@" not in secret), _FORMS_WITHOUT_HOST)
)
def test_no_password_is_in_anything_that_is_shown(case: tuple[str, str]) -> None:
    secret, form = case
    url = form.format(secret)
    shown = masked(url)
    try:
        address = parse_url(url)
    except InvalidValue as error:
        shown += f"{error} {error!r} {error.hint} {error.value} {''.join(traceback.format_exception(error))}"
    else:
        shown += f"{address} {address!r} {address.url}"
    assert "s3" not in shown
    assert "cr3t" not in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("etcd://h:21000: there is no 'a@ns1'; did you mean b?", None),
        ("must be etcd://HOST:PORT, or etcd://USER@HOST:PORT,HOST:PORT?password-file=FILE&cacert=FILE", None),
        ("must be dir:PATH (a directory of *.json files) or etcd://HOST:PORT", None),
        ("no 'a@b' in etcd://[::1]:1, nor (etcd://[::1]) an interface's 'c:d@e'", None),
        ("unix:///var/run/docker.sock: x:y@z", None),
        ("etcd://u:s3cret@h:1: a:b@c", "etcd://u:…@h:1: a:b@c"),
        (
            "at etcd://u:s3c@ret@h, etcd:u:s3cret@h and http://u:s3cret@h; x@y",
            "at etcd://u:…@h, etcd:u:…@h and http://u:…@h; x@y",
        ),
        ("'--store=etcd://u:s3 c'", "'--store=etcd://u:…'"),
        ("etcd://u:s3cret", "etcd://u:…"),
    ],
)
def test_in_a_message_each_url_is_shown_so_and_all_else_as_it_is(text: str, shown: str | None) -> None:
    assert masked_in(text) == (text if shown is None else shown)


@given(_SECRET, _FORMS.filter(lambda form: form.startswith("etcd:")))
def test_no_password_is_in_a_message_with_a_url(secret: str, form: str) -> None:
    url = form.format(secret)
    texts = [f"no {url!r}; x@y"]
    if not any(character.isspace() for character in secret):
        texts.append(f"no {url}; x@y")
    for text in texts:
        shown = masked_in(text)
        assert "s3" not in shown
        assert "cr3t" not in shown
        assert (shown[:3], shown[-5:]) == ("no ", "; x@y")
        assert masked_in(shown) == shown


@given(_SECRET)
def test_a_password_may_have_any_character_that_is_encoded(secret: str) -> None:
    encoded = "".join(f"%{byte:02X}" for byte in secret.encode())
    assert parse_url(f"etcd://u:{encoded}@h").password == secret


def test_an_address_does_not_show_the_password() -> None:
    address = Address("etcd://u:…@h", ("h:2379",), "u", "s3cret")
    assert "s3cret" not in repr(address)
