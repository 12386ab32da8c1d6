"""Before Linux 5.18, the kernel does not mark who added an address: the agent remembers its own addresses."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Vethctl
from tests.live.applying import Write, interface, value
from tests.live.older_kernel import without_owner_marks
from tests.witness import addresses, ip, seen
from vethlib import NetlinkError, Session
from vethlib.addresses import kernel_marks_owners
from vethlib.agent import Configurator, Interface


@pytest.fixture(autouse=True)
def _older(monkeypatch: pytest.MonkeyPatch) -> None:
    if kernel_marks_owners():
        without_owner_marks(monkeypatch)


@pytest.fixture
def write(write: Write) -> Write:
    """Write the file of a pair with these addresses on the end in home."""

    def write_pair(*given: str, netns: str = "") -> str:
        return write(
            value("a", "b", netns, ip_addresses=list(given)),
            value("b", "a", "ns1", ip_addresses=["10.9.0.2/24"]),
        )

    return write_pair


def warnings(err: str) -> list[str]:
    return [json.loads(line)["code"] for line in err.splitlines()]


def test_a_diff_lists_no_address_that_the_kernel_made_of_a_mac(vethctl: Vethctl, write: Write, tmp_path: Path) -> None:
    path = write("10.9.0.1/24")
    vethctl("apply", path)
    while not any(address["family"] == "inet6" for address in seen("a")["addr_info"]):
        time.sleep(0.01)
    assert vethctl("diff", path).code == 0
    (tmp_path / "interfaces.json").write_text("[]")
    told = vethctl("diff", "--prune", path)
    assert "-10.9.0.1/24" in told.out
    assert "fe80" not in told.out


@pytest.mark.parametrize("netns", ["", "ns2"])
def test_apply_takes_an_address_that_left_the_configuration_off_the_link(
    vethctl: Vethctl, write: Write, netns: str
) -> None:
    vethctl("apply", write("10.9.0.1/24", "10.9.1.1/24", "2001:db8::1/64", netns=netns))
    told = vethctl("--json", "apply", write("10.9.0.1/24", netns=netns))
    assert (told.code, told.err) == (0, "")
    assert addresses("a", netns) == ["10.9.0.1/24"]


def test_apply_takes_off_what_it_gave_to_a_link_later(vethctl: Vethctl, write: Write) -> None:
    vethctl("apply", write("10.9.0.1/24"))
    vethctl("apply", write("10.9.0.1/24", "fe80::9/64", "2001:db8::1/64"))
    vethctl("apply", write("10.9.0.1/24"))
    assert addresses("a") == ["10.9.0.1/24"]


def test_a_changed_prefix_length_is_changed(vethctl: Vethctl, write: Write) -> None:
    vethctl("apply", write("2001:db8::1/64"))
    assert vethctl("apply", write("2001:db8::1/96")).code == 0
    assert addresses("a") == ["2001:db8::1/96"]
    assert vethctl("diff", write("2001:db8::1/96")).code == 0


def test_apply_takes_one_with_attributes_off_and_changes_them(vethctl: Vethctl, write: Write) -> None:
    vethctl("apply", write("10.9.0.1/24 brd + label a:x", "10.9.1.1 peer 10.9.2.1/32"))
    assert vethctl("diff", write("10.9.0.1/24 brd + label a:x", "10.9.1.1 peer 10.9.2.1/32")).code == 0
    vethctl("apply", write("10.9.0.1/24", "10.9.1.1 peer 10.9.2.1/32"))
    (first,) = [one for one in seen("a")["addr_info"] if one["local"] == "10.9.0.1"]
    assert (first.get("broadcast"), first["label"]) == (None, "a")
    told = vethctl("--json", "apply", write("10.9.0.1/24"))
    assert (told.code, told.err) == (0, "")
    assert addresses("a") == ["10.9.0.1/24"]


@pytest.mark.parametrize("error", [NetlinkError, KeyboardInterrupt])
def test_apply_takes_off_what_it_gave_by_a_change_that_it_did_not_finish(
    vethctl: Vethctl, write: Write, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error("renew 10.9.0.1/24: refused")

    vethctl("apply", write("10.9.0.1/24"))
    ip("address", "change", "10.9.0.1/24", "dev", "a", "valid_lft", "600", "preferred_lft", "300")
    with monkeypatch.context() as patch:
        patch.setattr(Session, "renew_addresses", fail)
        assert vethctl("apply", write("10.9.0.1/24", "10.9.1.1/24")).code != 0
    assert addresses("a") == ["10.9.0.1/24", "10.9.1.1/24"]
    assert vethctl("apply", write("10.9.0.1/24")).code == 0
    assert addresses("a") == ["10.9.0.1/24"]


def test_apply_takes_off_what_it_gave_by_a_change_that_was_interrupted_when_made(
    vethctl: Vethctl, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Session.set

    def make_and_raise(*args: Any, **how: Any) -> None:
        make(*args, **how)
        raise KeyboardInterrupt

    vethctl("apply", write("10.9.0.1/24"))
    with monkeypatch.context() as patch:
        patch.setattr(Session, "set", make_and_raise)
        assert vethctl("apply", write("10.9.0.1/24", "10.9.1.1/24")).code != 0
    assert addresses("a") == ["10.9.0.1/24", "10.9.1.1/24"]
    assert vethctl("apply", write("10.9.0.1/24")).code == 0
    assert addresses("a") == ["10.9.0.1/24"]


def test_an_address_that_could_not_be_added_is_not_taken_off_when_somebody_else_adds_it(
    vethctl: Vethctl, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NetlinkError("set a: refused")

    vethctl("apply", write("10.9.0.1/24"))
    with monkeypatch.context() as patch:
        patch.setattr(Session, "set", refuse)
        assert vethctl("apply", write("10.9.0.1/24", "10.9.1.1/24")).code != 0
    ip("address", "add", "10.9.1.1/24", "dev", "a")
    assert vethctl("apply", write("10.9.0.1/24")).code == 0
    assert addresses("a") == ["10.9.0.1/24", "10.9.1.1/24"]


def test_a_trial_takes_back_the_address_that_it_added(vethctl: Vethctl, write: Write) -> None:
    vethctl("apply", write("10.9.0.1/24"))
    path = write("10.9.0.1/24", "10.9.1.1/24", "2001:db8::1/64")
    assert vethctl("apply", path, "--try", "1").code != 0
    assert addresses("a") == ["10.9.0.1/24"]


def test_a_trial_gives_back_the_address_that_it_took(vethctl: Vethctl, write: Write) -> None:
    vethctl("apply", write("10.9.0.1/24", "10.9.1.1/24"))
    vethctl("apply", write("10.9.0.1/24"), "--try", "1")
    assert addresses("a") == ["10.9.0.1/24", "10.9.1.1/24"]
    vethctl("apply", write("10.9.0.1/24"))
    assert addresses("a") == ["10.9.0.1/24"]


def test_what_somebody_else_has_added_stays_and_is_not_mentioned(vethctl: Vethctl, write: Write) -> None:
    path = write("10.9.0.1/24")
    vethctl("apply", path)
    ip("address", "add", "192.0.2.1/32", "dev", "a")
    for command in ("apply", "diff"):
        told = vethctl("--json", command, path)
        assert (told.code, told.err) == (0, "")
    assert "192.0.2.1/32" in addresses("a")


def test_what_may_be_ours_but_is_not_recorded_stays_and_is_reported(vethctl: Vethctl, write: Write) -> None:
    vethctl("apply", write("10.9.0.1/24", "10.9.1.1/24"))
    inode = Path("/proc/thread-self/ns/net").stat().st_ino
    Path(f"/run/vethlib/vpp1/pairs.{inode}").unlink()
    path = write("10.9.0.1/24")
    for command in (("diff",), ("apply", "--dry-run"), ("apply", "--try", "1"), ("apply",)):
        told = vethctl("--json", *command, path)
        assert told.code == 0
        assert warnings(told.err) == ["address-owner-unknown"]
    assert addresses("a") == ["10.9.0.1/24", "10.9.1.1/24"]


def settled(configurator: Configurator, *interfaces: Interface) -> None:
    configurator.resync(interfaces)
    configurator.poll(timeout=0)
    while any(status.state != "CONFIGURED" for status in configurator.status()):
        configurator.poll(timeout=0.2)


def test_an_agent_takes_off_what_left_and_after_a_restart_what_an_earlier_one_gave(
    session: Session, tmp_path: Path, make_netns: Callable[..., None]
) -> None:
    make_netns("ns1", "ns2")
    peer = interface("b", "a", "ns2")

    def a(*given: str) -> Interface:
        return interface("a", "b", "ns1", ip_addresses=list(given))

    with Configurator(session, label="t", records=str(tmp_path)) as configurator:
        settled(configurator, a("10.8.0.1/24", "10.8.1.1/24", "2001:db8::1/64"), peer)
        settled(configurator, a("10.8.0.1/24", "2001:db8::1/96"), peer)
        assert addresses("a", "ns1") == ["10.8.0.1/24", "2001:db8::1/96"]
    with Configurator(session, label="t", records=str(tmp_path)) as configurator:
        settled(configurator, a("10.8.0.1/24"), peer)
        assert addresses("a", "ns1") == ["10.8.0.1/24"]


def test_an_agents_status_says_which_address_it_cannot_account_for(
    session: Session, tmp_path: Path, make_netns: Callable[..., None]
) -> None:
    make_netns("ns1")
    both = interface("a", "b", ip_addresses=["10.8.0.1/24"]), interface("b", "a", "ns1")
    with Configurator(session, label="t", records=str(tmp_path / "one")) as configurator:
        settled(configurator, *both)
    ip("address", "add", "10.8.1.1/24", "dev", "a")
    with Configurator(session, label="t", records=str(tmp_path / "two")) as configurator:
        settled(configurator, *both)
        by_name = {status.name: status.warning for status in configurator.status()}
    assert "10.8.1.1/24" in by_name["a"]
    assert by_name["b"] == ""


def test_a_pair_built_again_has_a_record_of_its_own(session: Session, tmp_path: Path) -> None:
    both = interface("a", "b", ip_addresses=["10.8.0.1/24"]), interface("b", "a")
    with Configurator(session, label="t", records=str(tmp_path)) as configurator:
        settled(configurator, *both)
        ip("link", "del", "dev", "a")
        configurator.poll(timeout=0.5)
        settled(configurator, *both)
        ip("address", "add", "10.8.1.1/24", "dev", "a")
        settled(configurator, interface("a", "b"), both[1])
    assert addresses("a") == ["10.8.1.1/24"]
