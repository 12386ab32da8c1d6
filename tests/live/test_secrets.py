"""The secret of a link's IPv6 addresses, which only root can read, is in nothing that others can read."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.live.configuring import configured, pair, until
from vethlib import End, NetlinkError, Session, Veth
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.agent.run.describing import reply
from vethlib.endfields.checks import check_sysctls
from vethlib.session.core import settings
from vethlib.text import change_text, value_text

SECRET = "ipv6.stable_secret"
OLD, NEW = "2001:db8::aaaa:1", "2001:db8::bbbb:2"
SHOWN = ("aaaa", "bbbb")


def shows_none(text: str) -> bool:
    return not any(secret in text for secret in SHOWN)


@pytest.mark.parametrize(
    "say",
    [
        lambda old, new: change_text("sysctls", old, new),
        lambda old, new: value_text("sysctls", old) + value_text("sysctls", new),
        lambda old, new: f"{old[0]} {new[0]}",
    ],
)
def test_no_text_has_the_secret(say: Callable[[object, object], str]) -> None:
    text = say(check_sysctls({SECRET: OLD}), check_sysctls({SECRET: NEW}))
    assert SECRET in text
    assert shows_none(text)


def test_neither_log_nor_status_nor_error_has_the_secret(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    def is_in_kernel(secret: str) -> bool:
        try:
            return ip_address(Path("/proc/sys/net/ipv6/conf/a/stable_secret").read_text().strip()) == ip_address(secret)
        except OSError:
            return False  # no link, or no secret yet

    caplog.set_level(logging.INFO, "vethlib")
    with Configurator(session) as configurator:
        for secret in (OLD, NEW):
            configurator.resync(pair("a", "b", sysctls={SECRET: secret}))
            until(configurator, partial(is_in_kernel, secret))
            until(configurator, configured(configurator, "a", "b"))
        assert SECRET in caplog.text
        assert shows_none(caplog.text)
        assert shows_none(json.dumps([status.as_dict() for status in configurator.status()]))
        assert shows_none(json.dumps([change.as_dict() for change in configurator.history("a")]))


def test_a_refused_secret_is_not_in_the_error(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    session.create(Veth(End("a"), End("b")))
    monkeypatch.setattr(settings, "_write", refused)
    with pytest.raises(NetlinkError) as caught:
        session.set("a", sysctls={SECRET: OLD})
    assert "stable_secret" in str(caught.value)
    assert shows_none(str(caught.value))


def test_a_stranger_is_not_told_what_the_agent_did(session: Session) -> None:
    with Configurator(session) as configurator:
        configurator.resync(pair("a", "b", sysctls={"ipv4.rp_filter": "2"}))
        until(configurator, configured(configurator, "a", "b"))
        asked = b'{"describe": "a"}'
        to_root, to_others = (json.loads(reply(configurator, asked, trusted=trusted)) for trusted in (True, False))
        assert any(change["done"] for change in to_root["changes"])
        assert not any(change["done"] for change in to_others["changes"])
        assert [change["state"] for change in to_others["changes"]] == [
            change["state"] for change in to_root["changes"]
        ]
        assert (to_root["configuration"] is None, to_others["configuration"]) == (False, None)
