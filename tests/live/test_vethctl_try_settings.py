"""apply --try with settings below /proc/sys/net: each is undone separately, and a failure does not affect others."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Vethctl
from tests.live.applying import Write, value
from tests.live.sysctls import sysctl
from tests.mounts import read_only_sysctls
from tests.witness import host_state, ip, poll, seen, wait_for_carrier
from vethlib import ns
from vethlib.cli.applying.question import Answer

pytestmark = pytest.mark.slow

SECRET = "2001:0db8:0000:0000:0000:0000:0000:0001"
INTERVAL = "ipv6/conf/one/mldv1_unsolicited_report_interval"


@pytest.fixture
def write(write: Write) -> Write:
    def write_pair(_both: dict[str, Any] | None = None, **fields: Any) -> str:
        """Write a pair whose first end has these fields, and `_both` ends those."""
        both = _both or {}
        return write(value("one", "two", "ns1", **both, **fields), value("two", "one", "ns2", **both))

    return write_pair


def settings(name: str = "one", netns: str = "ns1") -> dict[str, str]:
    """All settings of a link, as the kernel shows them; one without a value is missing."""
    found = {}
    with ns.entered(netns):
        for file in sorted(Path("/proc/sys/net").glob(f"ipv[46]/conf/{name}/*")):
            try:
                found[f"{file.parts[4]}.{file.name}"] = file.read_text()
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
    return found


def setting(name: str) -> str:
    return sysctl("ns1", f"{name.partition('.')[0]}/conf/one/{name.partition('.')[2]}")


@pytest.mark.parametrize(
    "tried",
    [{"ipv6.accept_ra": "0"}, {"rp_filter": "2", "ipv6.accept_ra": "0"}, {"ipv6.stable_secret": SECRET}],
    ids=str,
)
def test_settings_that_were_not_there_without_ipv6_keep_nothing_from_being_undone(
    vethctl: Vethctl, write: Write, tried: dict[str, str]
) -> None:
    small = {"mtu": 576}
    assert vethctl("apply", write(small, ip_addresses=["10.0.0.1/24"])).code == 0
    before, filtered = host_state(), setting("ipv4.rp_filter")
    path = write(ip_addresses=["10.0.0.2/24"], host_if_name="eth0", sysctls=tried)
    assert vethctl("apply", path, "--try", "50ms").code == 4
    assert host_state() == before
    assert setting("ipv4.rp_filter") == filtered


def test_a_setting_that_was_not_there_stays_with_an_mtu_that_stays(
    vethctl: Vethctl, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meddle(*_: Any) -> Answer:
        ip("link", "set", "one", "mtu", "1350", netns="ns1")
        return Answer("test", "undo it")

    monkeypatch.setattr("vethlib.cli.applying.trial.ask", meddle)
    small = {"mtu": 576}
    assert vethctl("apply", write(small)).code == 0
    undone = vethctl("apply", write(txqlen=7, sysctls={"ipv6.accept_ra": "0"}), "--try", "60s", "--json")
    assert undone.code == 4
    assert [text for text in undone.json["left"] if "ipv6.accept_ra stays 0" in text]
    assert (seen("one", "ns1")["mtu"], seen("one", "ns1")["txqlen"], setting("ipv6.accept_ra")) == (1350, 1000, "0")


def test_a_pair_whose_link_has_not_the_setting_yet_can_be_rebuilt_on_trial(vethctl: Vethctl, write: Write) -> None:
    small = {"mtu": 576}
    assert vethctl("apply", write(small, txqlen=7)).code == 0
    path = write(num_queues=3, sysctls={"ipv6.accept_ra": "0"})
    assert vethctl("apply", path, "--try", "50ms").code == 4
    assert (seen("one", "ns1")["mtu"], seen("one", "ns1")["txqlen"]) == (576, 7)


def test_the_first_secret_of_a_link_is_not_tried_because_the_kernel_cannot_clear_it(
    vethctl: Vethctl, write: Write
) -> None:
    assert vethctl("apply", write()).code == 0
    before = host_state()
    path = write(mtu=1400, sysctls={"ipv6.stable_secret": SECRET})
    refused = vethctl("apply", path, "--try", "10s", "--json")
    assert (refused.code, refused.errors[-1]["code"]) == (2, "irreversible")
    assert "ipv6.stable_secret" in refused.errors[-1]["error"]
    assert host_state() == before
    assert vethctl("apply", path, "--try", "10s", "--dry-run").code == 2
    assert vethctl("apply", path).code == 0
    other = write(mtu=1300, sysctls={"ipv6.stable_secret": SECRET[:-1] + "2"})
    assert vethctl("apply", other, "--try", "50ms").code == 4
    assert (setting("ipv6.stable_secret"), seen("one", "ns1")["mtu"]) == (SECRET, 1400)


@pytest.mark.parametrize("mode", ["0", "1", "2"])
def test_the_way_of_generating_addresses_which_a_secret_sets_is_undone_with_it(
    vethctl: Vethctl, write: Write, mode: str
) -> None:
    assert vethctl("apply", write(sysctls={"ipv6.stable_secret": SECRET})).code == 0
    sysctl("ns1", "ipv6/conf/one/addr_gen_mode", mode)
    before = settings()
    path = write(sysctls={"ipv6.stable_secret": SECRET[:-1] + "2"})
    undone = vethctl("apply", path, "--try", "50ms", "--json")
    assert (undone.code, undone.json["left"]) == (4, [])
    assert settings() == before


@pytest.mark.parametrize("others", [{}, {"medium_id": "1", "forwarding": "1"}], ids=str)
def test_a_setting_that_the_kernel_rounded_is_undone_like_the_others(
    vethctl: Vethctl, write: Write, others: dict[str, str]
) -> None:
    def state() -> list[str]:
        return [sysctl("ns1", INTERVAL), setting("ipv4.medium_id"), setting("ipv4.forwarding")]

    assert vethctl("apply", write()).code == 0
    before = state()
    path = write(sysctls={"ipv6.mldv1_unsolicited_report_interval": "1", **others})
    undone = vethctl("apply", path, "--try", "50ms", "--json")
    assert (undone.code, undone.json["left"]) == (4, [])
    assert state() == before


def test_only_the_setting_that_another_program_has_set_since_stays(
    vethctl: Vethctl, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meddle(*_: Any) -> Answer:
        sysctl("ns1", "ipv4/conf/one/medium_id", "7")
        sysctl("ns1", "ipv6/conf/one/accept_ra", accepted)  # as it was: nothing is left to be undone
        return Answer("test", "undo it")

    monkeypatch.setattr("vethlib.cli.applying.trial.ask", meddle)
    assert vethctl("apply", write()).code == 0
    accepted, before = setting("ipv6.accept_ra"), setting("ipv4.forwarding")
    path = write(sysctls={"medium_id": "1", "forwarding": "1", "ipv6.accept_ra": "2"})
    undone = vethctl("apply", path, "--try", "60s", "--json")
    assert undone.code == 4
    (left,) = undone.json["left"]
    assert "ipv4.medium_id stays 7" in left
    assert "Sysctl(" not in left
    assert (setting("ipv4.medium_id"), setting("ipv4.forwarding")) == ("7", before)
    assert setting("ipv6.accept_ra") == accepted


OWN = {"ipv6.router_solicitations": "1", "ipv6.accept_ra": "0", "rp_filter": "2"}


def set_foreign() -> None:
    sysctl("ns1", "ipv6/conf/one/hop_limit", "77")
    sysctl("ns1", "ipv6/conf/one/addr_gen_mode", "0")  # as that of a new link; with a secret it would be 2
    sysctl("ns1", "ipv4/conf/one/proxy_arp", "1")


@pytest.mark.parametrize("own", [{}, OWN, OWN | {"ipv6.stable_secret": SECRET}], ids=str)
@pytest.mark.parametrize("foreign", [False, True])
def test_the_settings_that_an_mtu_without_ipv6_costs_a_link_are_restored(
    vethctl: Vethctl, write: Write, own: dict[str, str], foreign: bool
) -> None:
    assert vethctl("apply", write(sysctls=own)).code == 0
    if foreign:
        set_foreign()
    before = settings()
    assert before["ipv6.accept_ra"].strip() == own.get("ipv6.accept_ra", "1")
    undone = vethctl("apply", write({"mtu": 576}, sysctls={"medium_id": "3"}), "--try", "50ms", "--json")
    assert (undone.code, undone.json["left"]) == (4, [])
    assert settings() == before


@pytest.mark.parametrize("how", ["small", "rebuilt", "deleted"])
def test_settings_that_could_not_be_restored_because_they_are_read_only_are_not_tried_away(
    vethctl: Vethctl, write: Write, tmp_path: Path, how: str
) -> None:
    assert vethctl("apply", write()).code == 0
    sysctl("ns1", "ipv6/conf/one/hop_limit", "77")
    before = host_state()
    nothing = tmp_path / "nothing.json"
    nothing.write_text("[]")
    path = str(nothing) if how == "deleted" else write({"mtu": 576}) if how == "small" else write(num_queues=3)
    with read_only_sysctls():
        assert vethctl("apply", path, "--prune", "--try", "10s", "--dry-run").code == 2
        refused = vethctl("apply", path, "--prune", "--try", "10s", "--json")
    assert (refused.code, refused.out) == (2, "")
    assert "hop_limit" in refused.errors[-1]["error"]
    assert host_state() == before
    sysctl("ns1", "ipv6/conf/one/hop_limit", sysctl("ns1", "ipv6/conf/default/hop_limit"))
    with read_only_sysctls():
        assert vethctl("apply", write(num_queues=3), "--try", "50ms").code == 4


@pytest.mark.parametrize("how", ["small", "rebuilt"])
def test_the_mtu_of_ipv6_which_the_kernel_sets_keeps_nothing_from_being_undone(
    vethctl: Vethctl, write: Write, how: str
) -> None:
    assert vethctl("apply", write(sysctls=OWN)).code == 0
    wait_for_carrier(("one", "ns1"), ("two", "ns2"))
    sysctl("ns1", "ipv6/conf/one/mtu", "1300")
    path = write({"mtu": 576}) if how == "small" else write(num_queues=3)
    undone = vethctl("apply", path, "--try", "50ms", "--json")
    assert (undone.code, undone.json["left"]) == (4, [])
    assert (setting("ipv6.mtu"), setting("ipv6.accept_ra")) == ("1500", "0")


@pytest.mark.parametrize("own", [{"ipv6.stable_secret": SECRET}, {"ipv6.addr_gen_mode": "1"}], ids=str)
@pytest.mark.parametrize("how", ["small", "rebuilt"])
def test_the_link_local_address_of_a_restored_link_is_generated_according_to_its_settings(
    vethctl: Vethctl, write: Write, own: dict[str, str], how: str
) -> None:
    def addresses() -> list[tuple[str, bool]]:
        return sorted((one["local"], one.get("stable-privacy", False)) for one in seen("one", "ns1")["addr_info"])

    assert vethctl("apply", write(sysctls=own)).code == 0
    assert poll(lambda: len(addresses()) == len(own.keys() - {"ipv6.addr_gen_mode"}))
    before = addresses()
    path = write({"mtu": 576}) if how == "small" else write(num_queues=3)
    assert vethctl("apply", path, "--try", "50ms").code == 4
    assert poll(lambda: addresses() == before)


def test_settings_are_not_restored_if_another_program_has_raised_the_mtu_since(
    vethctl: Vethctl, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meddle(*_: Any) -> Answer:
        ip("link", "set", "one", "mtu", "1350", netns="ns1")
        sysctl("ns1", "ipv6/conf/one/accept_ra", "2")
        return Answer("test", "undo it")

    assert vethctl("apply", write(sysctls=OWN)).code == 0
    monkeypatch.setattr("vethlib.cli.applying.trial.ask", meddle)
    undone = vethctl("apply", write({"mtu": 576}), "--try", "60s", "--json")
    assert undone.code == 4
    assert [text for text in undone.json["left"] if "mtu stays 1350" in text]
    assert setting("ipv6.accept_ra") == "2"


@pytest.mark.parametrize("own", [{}, OWN, OWN | {"ipv6.stable_secret": SECRET}], ids=str)
@pytest.mark.parametrize("how", ["deleted", "rebuilt"])
def test_the_settings_of_a_pair_that_is_created_again_are_restored(
    vethctl: Vethctl, write: Write, tmp_path: Path, own: dict[str, str], how: str
) -> None:
    assert vethctl("apply", write(sysctls=own)).code == 0
    set_foreign()
    sysctl("ns2", "ipv4/conf/two/proxy_arp", "1")
    before, other = settings(), settings("two", "ns2")
    nothing = tmp_path / "nothing.json"
    nothing.write_text("[]")
    path = str(nothing) if how == "deleted" else write(num_queues=3)
    undone = vethctl("apply", path, "--prune", "--try", "50ms", "--json")
    assert (undone.code, undone.json["left"]) == (4, [])
    assert (settings(), settings("two", "ns2")) == (before, other)
