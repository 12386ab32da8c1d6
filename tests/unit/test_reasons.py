"""The sentences of all reasons, in one table: other tests check the code and its subject."""

from __future__ import annotations

import errno
import pickle

import pytest

from tests.reasons import reasons_in_codes
from vethlib.agent import Reason, ReasonCode, State, Status, Verdict, reasons
from vethlib.agent.planning.confine import foreseen
from vethlib.agent.reasons import of_error
from vethlib.errors import (
    DuplicateAddress,
    InvalidValue,
    LinkExists,
    LinkNotFound,
    Malformed,
    NetlinkError,
    NetnsExists,
    NetnsNotFound,
    NotPermitted,
    NotSupported,
    SessionClosed,
    VethError,
    WaitTimeout,
)
from vethlib.follow import ResolverDown

END = "'eth0' in netns:ns1"
DRIFT = "mtu is 1300, not 1500"

SENTENCES = [
    # what a pair needs
    (reasons.peer_not_configured("b"), "peer-not-configured(b)", "peer b is not configured"),
    (reasons.peer_invalid("b"), "peer-invalid(b)", "peer b is INVALID"),
    (
        reasons.peer_points_elsewhere("b", "c"),
        "peer-points-elsewhere(b)",
        "peer b names c as its peer, not this interface",
    ),
    (reasons.peer_failed("b", "why"), "peer-failed(b)", "peer b failed: why"),
    (
        reasons.of_peer("b", Reason(ReasonCode.PROCESS_GONE, "process 42 is gone", "pid:42")),
        "process-gone(pid:42)",
        "peer b: process 42 is gone",
    ),
    (reasons.needs_rebuild("a", "num_queues", 2, 8), "needs-rebuild(num_queues)", "a has num_queues 2, not 8"),
    (
        reasons.master_not_found("'a'", "br0"),
        "master-not-found(br0)",
        "the master of 'a', 'br0', does not exist: create it, or remove the field",
    ),
    (reasons.name_taken("a", "eth0"), "name-taken(eth0)", "'a' cannot be renamed while 'eth0' is taken"),
    (
        reasons.netns_limit("/run/netns/ns1", "netns:ns1", 9),
        "netns-limit(netns:ns1)",
        "/run/netns/ns1 does not exist, and this agent creates no more than 9 namespaces (limit netns_made)",
    ),
    (
        reasons.netns_being_deleted("/run/netns/ns1", "netns:ns1"),
        "netns-being-deleted(netns:ns1)",
        "/run/netns/ns1 is being deleted: its file still exists",
    ),
    (
        reasons.process_not_moved(42, "pid:42"),
        "process-not-moved(pid:42)",
        "process 42 has not unshared its network namespace yet: it is in the agent's own",
    ),
    (
        reasons.process_not_moved(42, "microservice:web", "web"),
        "process-not-moved(microservice:web)",
        "microservice web: process 42 has not unshared its network namespace yet: it is in the agent's own",
    ),
    (reasons.not_read(), "not-read", "the agent has not read it yet"),
    # a name that another link or interface has
    (reasons.name_claimed(END, "b"), "name-claimed(b)", f"{END} is also claimed by b, which takes precedence"),
    (
        reasons.link_foreign(END, "eth0", "", ""),
        "link-foreign(eth0)",
        f"{END} exists and is not managed by this agent: delete or rename it, or configure another name",
    ),
    (
        reasons.link_foreign(END, "eth0", "veth", "to the lab"),
        "link-foreign(eth0)",
        f"{END} exists and is not managed by this agent (kind veth, alias 'to the lab'): "
        "delete or rename it, or configure another name",
    ),
    (
        reasons.link_of_other_label(END, "veth", "uplink", "lab"),
        "link-of-other-label(lab)",
        f"{END} exists and is not managed by this agent (kind veth): "
        "it is uplink of the agent with the label lab: delete it, or use that label",
    ),
    (
        reasons.link_unrecorded(END, "eth0", "veth", "a"),
        "link-unrecorded(eth0)",
        f"{END} exists and is not managed by this agent (kind veth): it has the alias of a, "
        "but there is no record that this agent built it, or its other end has another alias: "
        "delete it, or configure another name",
    ),
    (
        reasons.link_altname(END, "b"),
        "link-altname(b)",
        f"{END} exists as an alternative name of 'b': remove that name, or configure another one",
    ),
    (reasons.link_in_use(END, "b"), "link-in-use(b)", f"{END} is still the link of b"),
    (reasons.link_in_use(END, ""), "link-in-use", f"{END} is still the link of another interface"),
    # duplicate address detection
    (
        reasons.address_tentative(["fd00::1/64", "fd00::2/64"]),
        "address-tentative(fd00::1/64)",
        "fd00::1/64, fd00::2/64: duplicate address detection has not finished",
    ),
    (
        reasons.duplicate_address(list("abcde")),
        "duplicate-address(a)",
        "a, b, c and 2 more: duplicate address detection failed: another host on the link has the same address",
    ),
    (
        reasons.duplicate_address(["fd00::1/64"], "b"),
        "duplicate-of-peer(fd00::1/64)",
        "fd00::1/64: duplicate address detection failed: the other end, b, has the same address",
    ),
    (
        reasons.duplicate_mac(["fd00::1/64"]),
        "duplicate-mac(fd00::1/64)",
        "fd00::1/64: duplicate address detection failed: another host on the link has the same MAC address, "
        "and the kernel switched IPv6 off (accept_dad is 2)",
    ),
    # what did not last
    (reasons.drift_persists(DRIFT, "mtu", 3), "drift-persists(mtu)", f"{DRIFT}, after 3 attempts in a row"),
    (
        reasons.surplus_left("routes", 512),
        "surplus-left(routes)",
        "more than 512 unconfigured routes; 512 are removed at a time",
    ),
    (
        reasons.changed_repeatedly(DRIFT, "mtu", 4),
        "changed-repeatedly(mtu)",
        f"{DRIFT}; repaired 4 times in a row, and changed again by another program",
    ),
    (reasons.not_deletable("a", "why"), "not-deletable(a)", "it cannot be deleted: why"),
    # warnings
    (reasons.unchecked("why"), "unchecked", "the link exists, but cannot be checked: why"),
    (
        reasons.events_ignored(),
        "events-ignored",
        "its namespace sends too many events: it is checked only now and then",
    ),
    (
        reasons.address_owner_unknown(list("abcdefghi")),
        "address-owner-unknown",
        "not configured, but not removed, because this kernel (before 5.18) does not record who added it: "
        "a, b, c, d, e, f, g, h, …",
    ),
    (reasons.events_missed("why"), "events-missed", "changes of its link are not noticed: why"),
]

ERRORS = [
    (NetnsNotFound("x", netns="netns:ns1"), "netns-not-found(netns:ns1)"),
    (NetnsNotFound("x", netns="netns:ns1", taken=True), "not-a-netns(netns:ns1)"),
    (NetnsNotFound("x", netns="path:/x"), "netns-not-found(path:/x)"),
    (NetnsNotFound("x", netns="pid:42"), "process-gone(pid:42)"),
    (NetnsNotFound("x", netns="microservice:web"), "microservice-not-running(microservice:web)"),
    (NetnsNotFound("x"), "netns-not-found(netns:ns9)"),
    (ResolverDown("x"), "resolver-down(netns:ns9)"),
    (LinkExists("x", errno=errno.EEXIST, netns="pid:42"), "link-exists(pid:42 EEXIST)"),
    (LinkNotFound("x", errno=errno.ENODEV), "link-not-found(netns:ns9 ENODEV)"),
    (NotPermitted("x", errno=errno.EPERM), "not-permitted(netns:ns9 EPERM)"),
    (NotSupported("x", errno=errno.EOPNOTSUPP), "not-supported(netns:ns9 ENOTSUP)"),
    (Malformed("x"), "malformed(netns:ns9 EBADMSG)"),
    (NetlinkError("x", errno=errno.ENOSPC), "netlink-error(netns:ns9 ENOSPC)"),
    (NetlinkError("x", errno=9999), "netlink-error(netns:ns9 9999)"),
    (DuplicateAddress("x"), "duplicate-address"),
    (NetnsExists("x"), "netns-exists(netns:ns9)"),
    (WaitTimeout("x"), "wait-timeout"),
    (InvalidValue("mtu", 5, "must be more"), "invalid-value(mtu)"),
    (SessionClosed("x"), "refused"),
    (VethError("x"), "refused"),
    (foreseen(ZeroDivisionError(), "plan a"), "unforeseen"),
]

CODES = """
peer-not-configured peer-points-elsewhere peer-failed master-not-found netns-not-found not-a-netns process-gone
process-not-moved microservice-not-running resolver-down netns-limit netns-being-deleted netns-unknown
address-tentative needs-rebuild name-taken not-read name-claimed link-foreign link-of-other-label link-unrecorded
link-altname link-in-use drift-persists changed-repeatedly duplicate-address duplicate-of-peer duplicate-mac
not-deletable link-exists link-not-found netns-exists not-permitted not-supported netlink-error malformed wait-timeout
invalid-value refused unforeseen unchecked address-owner-unknown events-ignored events-missed resolver-remark
"""


@pytest.mark.parametrize(("reason", "code", "text"), SENTENCES, ids=[code for _, code, _ in SENTENCES])
def test_a_reason_has_this_sentence(reason: Reason, code: str, text: str) -> None:
    assert (reasons_in_codes([reason]), reason.text, str(reason)) == (code, text, text)


@pytest.mark.parametrize(("error", "code"), ERRORS, ids=[code for _, code in ERRORS])
def test_a_refusal_has_the_code_of_its_class_and_its_own_sentence(error: VethError, code: str) -> None:
    reason = of_error(error, "netns:ns9")
    assert (reasons_in_codes([reason]), reason.text) == (code, str(error))


def test_every_code_is_that_of_a_reason_here_or_of_something_that_others_say() -> None:
    here = {str(reason.code) for reason, _, _ in SENTENCES} | {str(of_error(error).code) for error, _ in ERRORS}
    elsewhere = {ReasonCode.NETNS_UNKNOWN, ReasonCode.RESOLVER_REMARK}
    assert {str(code) for code in ReasonCode} == here | elsewhere


def test_what_a_reason_is_about_is_what_its_code_says() -> None:
    for reason, _, _ in SENTENCES:
        assert bool(reason.code.subject) or not reason.about


def test_a_state_with_several_reasons_has_all_their_codes_and_the_first_as_its_own() -> None:
    verdict = Verdict.because(State.PENDING, reasons.peer_not_configured("b"), reasons.not_read())
    assert (verdict.code, verdict.reason) == (
        "peer-not-configured",
        "; ".join(reason.text for reason in verdict.reasons),
    )
    status = Status("a", State.PENDING, verdict.reason, 0.0, reasons=verdict.reasons)
    entry = status.as_dict()
    assert entry["code"] == "peer-not-configured"
    assert entry["reasons"] == [{"code": "peer-not-configured", "about": "b"}, {"code": "not-read", "about": ""}]
    assert (Verdict(State.CONFIGURED).code, Status("a", State.CONFIGURED, "", 0.0).as_dict()["code"]) == ("", "")


def test_a_verdict_equals_one_that_was_made_from_its_text() -> None:
    reason = reasons.peer_not_configured("b")
    assert Verdict.because(State.PENDING, reason) == Verdict(State.PENDING, reason.text)


def test_a_code_survives_a_pickle() -> None:
    for code in ReasonCode:
        assert pickle.loads(pickle.dumps(code)) is code


def test_codes_never_change() -> None:
    """Programs depend on them: this list may only become longer."""
    assert {str(code) for code in ReasonCode} >= set(CODES.split())
