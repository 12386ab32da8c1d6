"""The etcd store with authentication, and with a wrong server; and passwords, which nobody may see."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme

from tests.backends.etcd import Etcd, Tls
from tests.backends.etcd_consumer import LABEL, PREFIX, Consumer, changes, key, many, text
from tests.backends.etcd_fixtures import Follow, MakeEtcd
from tests.backends.proxy import Proxy
from tests.stores import nothing
from tests.witness import poll
from vethlib.agent import State
from vethlib.agent.status import Status
from vethlib.agent.stores.etcd.published import EtcdStatuses
from vethlib.agent.stores.keys import liveness_key, status_key
from vethlib.agent.stores.protocol import Outage
from vethlib.agent.stores.published import Published
from vethlib.agent.stores.storecode import StoreCode
from vethlib.errors import InvalidValue

SECRET = "s3cr:t/@?é"
MINE = f"/vnf-agent/{LABEL}/"


def url(etcd: Etcd | Proxy, user: str, password: str = SECRET, more: str = "") -> str:
    return f"etcd://{user}:{quote(password, safe='')}@{etcd.endpoint}{more}"


def outage(consumer: Consumer) -> StoreCode:
    """Why there is an outage, which is the first thing that is told; and there is nothing else to be told of it."""
    (one,) = consumer.hear()
    assert isinstance(one, Outage), one
    nothing(consumer.store)
    return one.code


# --- users


@pytest.fixture
def asked(etcd_with_auth: Etcd) -> Etcd:
    """A server with v0 to v9, which the user `me` may read, as all of his label."""
    etcd_with_auth.add_user("me", SECRET, MINE)
    for each, value in many(3).items():
        etcd_with_auth.put(each, value)
    return etcd_with_auth


def test_a_user_with_a_password_follows_and_writes(asked: Etcd, follow: Follow) -> None:
    consumer = follow(url(asked, "me"))
    consumer.come_to(asked)
    asked.put(key("a"), text("a"))
    assert changes(consumer.come_to(asked)) == ["a"]
    consumer.store.publish({"a": Status("a", State.CONFIGURED, "", 0.0)})
    assert poll(lambda: set(asked.values(f"{MINE}linux/status")) == {status_key(LABEL, "a").encode()})


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_password_can_be_in_a_file(asked: Etcd, follow: Follow, tmp_path: Path, end: str) -> None:
    (tmp_path / "password").write_bytes(f"{SECRET}{end}".encode())
    follow(f"etcd://me@{asked.endpoint}?password-file={tmp_path}/password").come_to(asked)


def test_the_file_is_read_again_where_the_password_was_wrong(asked: Etcd, follow: Follow, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("a guess")
    consumer = follow(f"etcd://me@{asked.endpoint}?password-file={tmp_path}/password")
    assert outage(consumer) is StoreCode.WRONG_PASSWORD
    (tmp_path / "password").write_text(SECRET)
    consumer.come_to(asked)


def test_a_password_file_that_is_not_there_is_an_outage_until_it_is(
    asked: Etcd, follow: Follow, tmp_path: Path
) -> None:
    consumer = follow(f"etcd://me@{asked.endpoint}?password-file={tmp_path}/password")
    assert outage(consumer) is StoreCode.FILE_UNREADABLE
    (tmp_path / "password").write_text(SECRET)
    consumer.come_to(asked)


@pytest.mark.parametrize("user", ["me", "nobody"])
def test_a_wrong_password_and_a_wrong_user_are_told_alike(asked: Etcd, follow: Follow, user: str) -> None:
    assert outage(follow(url(asked, user, "wr0ng"))) is StoreCode.WRONG_PASSWORD


def test_who_names_no_user_is_told_to(asked: Etcd, follow: Follow) -> None:
    assert outage(follow(asked.url)) is StoreCode.USER_REQUIRED


def test_who_may_not_read_the_keys_is_told_so_and_reads_them_when_he_may(asked: Etcd, follow: Follow) -> None:
    asked.add_user("other", SECRET, "/vnf-agent/another/")
    consumer = follow(url(asked, "other"))
    assert outage(consumer) is StoreCode.NOT_PERMITTED
    asked.grant("other", MINE)
    consumer.come_to(asked)


def test_who_may_only_read_follows_though_nothing_can_be_said(
    asked: Etcd, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    asked.add_user("reader", SECRET, PREFIX, kind="read")
    consumer = follow(url(asked, "reader", more="?heartbeat=0.2"))
    consumer.come_to(asked)
    consumer.store.publish({"v1": Status("v1", State.CONFIGURED, "", 0.0)})
    assert poll(lambda: "statuses cannot be written" in caplog.text)
    asked.put(key("a"), text("a"))
    assert changes(consumer.come_to(asked)) == ["a"]
    nothing(consumer.store, 1.0)
    assert caplog.text.count("statuses cannot be written") == 1
    assert asked.values(f"{MINE}linux/status") == {}


def test_a_user_named_where_nobody_is_asked_makes_no_difference(etcd: Etcd, follow: Follow) -> None:
    etcd.fill(many(3))
    follow(url(etcd, "me")).come_to(etcd)


def test_a_login_that_the_server_forgets_is_made_again(asked: Etcd, follow: Follow) -> None:
    """Its simple tokens are in the memory of the process."""
    consumer = follow(url(asked, "me"))
    consumer.come_to(asked)
    for round_ in range(2):
        asked.restart()
        asked.put(key("a"), text("a", mtu=1000 + round_))
        assert changes(consumer.come_to(asked)) == ["a"]
        consumer.store.publish({"a": Status("a", State.CONFIGURED, f"round {round_}", 0.0)})
        said = f"round {round_}".encode()
        assert poll(lambda said=said: any(said in one for one in asked.values(MINE).values()))  # type: ignore[misc]


def test_a_login_that_has_run_out_is_made_again(make_etcd: MakeEtcd, follow: Follow) -> None:
    etcd = make_etcd("--auth-token-ttl", "1")
    etcd.start()
    etcd.enable_auth()
    etcd.add_user("me", SECRET, MINE)
    consumer = follow(url(etcd, "me"))
    consumer.come_to(etcd)
    with closing(EtcdStatuses(url(etcd, "me"), LABEL).watch(None)) as watching:
        next(watching)
        nothing(consumer.store, 2.5)
        consumer.store.publish({"a": Status("a", State.CONFIGURED, "", 0.0)})
        assert poll(lambda: bool(etcd.values(status_key(LABEL, "a"))))
        told = next(watching)
        assert isinstance(told, Published)
        assert set(told.entries) == {"a"}
    etcd.put(key("a"), text("a"))
    consumer.come_to(etcd)


def test_a_user_who_is_shut_out_while_he_follows_hears_nothing_more_when_he_comes_again(
    asked: Etcd, make_proxy: Callable[..., Proxy], follow: Follow
) -> None:
    proxy = make_proxy(asked.address)
    consumer = follow(url(proxy, "me"))
    consumer.come_to(asked)
    asked.ctl("role", "revoke-permission", "--prefix=true", "me", MINE)
    proxy.cut()
    assert consumer.wait_for_outage() is StoreCode.NOT_PERMITTED
    assert len(consumer.known or ()) == 3
    asked.grant("me", MINE)
    consumer.come_to(asked)


def test_nobody_is_shown_a_password(
    asked: Etcd, follow: Follow, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    shown = []
    for address in (url(asked, "me"), url(asked, "nobody"), url(asked, "me", more="?tls=1")):
        consumer = follow(address)
        consumer.hear()
        shown += [repr(consumer.store), str(consumer.store), *map(repr, consumer.told)]
        shown += [repr(value) for value in vars(consumer.store).values()]
    for wrong in ("?no-such=1", "?lease=x", ":x", "?password-file=/x", "?cert=/x"):
        with pytest.raises(InvalidValue) as caught:
            follow(url(asked, "me", more=wrong))
        shown += [str(caught.value), repr(caught.value)]
    said = capfd.readouterr()
    for one in (*shown, caplog.text, said.out, said.err):
        assert SECRET not in one
        assert quote(SECRET, safe="") not in one


# --- certificates


@pytest.fixture
def serving(make_etcd: MakeEtcd, tls: Callable[..., Tls]) -> Callable[..., Etcd]:
    """A server with a certificate, and v0 to v2."""

    def serve(*how: str, asks: bool = False) -> Etcd:
        etcd = make_etcd(tls=tls(*how, asks=asks))
        etcd.start()
        etcd.txn(*(f"put {each} {quoted(value)}" for each, value in many(3).items()))
        return etcd

    return serve


Serving = Callable[..., Etcd]


def quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """The certificate of an authority that nobody knows, one that it signed, and its key."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    cert = authority.issue_cert("stranger@host")
    (tmp_path / "cert.pem").write_bytes(b"".join(one.bytes() for one in cert.cert_chain_pems))
    cert.private_key_pem.write_to_path(tmp_path / "key.pem")
    return tmp_path


@pytest.mark.parametrize("asks", [False, True])
def test_certificates_are_shown_and_checked(serving: Serving, follow: Follow, asks: bool) -> None:
    etcd = serving(asks=asks)
    consumer = follow(etcd.url)
    consumer.come_to(etcd)
    etcd.put(key("a"), text("a"))
    assert changes(consumer.come_to(etcd)) == ["a"]


def test_a_certificate_that_is_not_asked_for_does_no_harm(
    serving: Serving, follow: Follow, tls: Callable[..., Tls]
) -> None:
    etcd = serving()
    follow(f"etcd://{etcd.endpoint}{tls(asks=True).query}").come_to(etcd)


def test_a_server_with_a_certificate_of_an_unknown_authority_is_not_believed(
    serving: Serving, follow: Follow, stranger: Path
) -> None:
    etcd = serving()
    for query in (f"cacert={stranger}/ca.pem", "tls=1"):
        assert outage(follow(f"etcd://{etcd.endpoint}?{query}")) is StoreCode.CERTIFICATE_UNTRUSTED


def test_a_server_with_another_name_is_not_believed_but_by_that_name(serving: Serving, follow: Follow) -> None:
    etcd = serving("etcd.example")
    assert outage(follow(etcd.url)) is StoreCode.CERTIFICATE_NAME
    follow(f"{etcd.url}&server-name=etcd.example").come_to(etcd)


def test_a_server_that_asks_for_a_certificate_gets_one_that_it_believes_or_it_is_told(
    serving: Serving, follow: Follow, stranger: Path
) -> None:
    etcd = serving(asks=True)
    assert etcd.tls is not None
    cacert = f"etcd://{etcd.endpoint}?cacert={etcd.tls.cacert}"
    for more in ("", f"&cert={stranger}/cert.pem&key={stranger}/key.pem"):
        assert outage(follow(cacert + more)) is StoreCode.CERTIFICATE_REQUIRED


def test_who_speaks_plainly_to_a_server_with_tls_is_told_to_use_it(serving: Serving, follow: Follow) -> None:
    etcd = serving()
    assert outage(follow(f"etcd://{etcd.endpoint}")) is StoreCode.TLS_REQUIRED


def test_who_speaks_tls_to_a_server_without_is_told_not_to(etcd: Etcd, follow: Follow) -> None:
    assert outage(follow(f"{etcd.url}?tls=1")) is StoreCode.TLS_UNUSED


def test_files_that_are_no_certificates_are_named(serving: Serving, follow: Follow, tmp_path: Path) -> None:
    etcd = serving()
    (tmp_path / "empty").touch()
    assert outage(follow(f"etcd://{etcd.endpoint}?cacert={tmp_path}/empty")) is StoreCode.FILE_UNREADABLE
    (tmp_path / "text").write_text("no certificate")
    assert outage(follow(f"etcd://{etcd.endpoint}?cacert={tmp_path}/text")) is StoreCode.CERTIFICATE_INVALID
    assert outage(follow(f"etcd://{etcd.endpoint}?cacert={tmp_path}/nothing")) is StoreCode.FILE_UNREADABLE


def test_a_certificate_that_is_renewed_is_taken_with_the_next_connection(
    serving: Serving, follow: Follow, stranger: Path
) -> None:
    etcd = serving(asks=True)
    assert etcd.tls is not None
    query = f"?cacert={etcd.tls.cacert}&cert={stranger}/cert.pem&key={stranger}/key.pem"
    consumer = follow(f"etcd://{etcd.endpoint}{query}")
    consumer.wait_for_outage()
    for file, new in (("cert.pem", etcd.tls.cert), ("key.pem", etcd.tls.key)):
        (stranger / file).write_bytes(new.read_bytes())
    consumer.come_to(etcd)


def test_a_password_and_a_certificate_go_together(make_etcd: MakeEtcd, tls: Callable[..., Tls], follow: Follow) -> None:
    certificates = tls()
    etcd = make_etcd(tls=certificates)
    etcd.start()
    etcd.enable_auth()
    etcd.add_user("me", SECRET, MINE)
    etcd.put(key("a"), text("a"))
    follow(url(etcd, "me", more=certificates.query)).come_to(etcd)
    assert etcd.values(liveness_key(LABEL))
