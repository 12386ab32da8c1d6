"""The exceptions: how they can be caught, their fields, and pickling."""

from __future__ import annotations

import copy
import errno
import pickle
import sys
from typing import Any

import pytest

from vethlib import ns
from vethlib.errors import (
    BatchError,
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
    belongs_to_parent,
    errno_text,
    error_class,
    not_permitted,
)
from vethlib.links import End, Veth
from vethlib.session.core.refusal import copy_for, sysctl_error, system_errors

FIELDS: dict[str, Any] = {"errno": 17, "extack": "why", "request": "create", "netns": "blue"}

ALL: list[tuple[VethError, type[Exception]]] = [
    (InvalidValue("mtu", 1, "too small"), ValueError),
    (NetlinkError("no", **FIELDS), OSError),
    (LinkExists("no", **FIELDS), FileExistsError),
    (LinkNotFound("no", **FIELDS), LookupError),
    (not_permitted("no", "CAP_NET_ADMIN", **FIELDS), PermissionError),
    (NotSupported("no", **FIELDS), OSError),
    (DuplicateAddress("no", **FIELDS), OSError),
    (Malformed("no", **FIELDS), ValueError),
    (Malformed("no", netns="blue"), OSError),
    (NetnsNotFound("no", netns="blue"), LookupError),
    (NetnsExists("no"), FileExistsError),
    (WaitTimeout("no", awaited="carrier", name="x", netns="blue", seconds=0.5), TimeoutError),
    (SessionClosed("no"), RuntimeError),
    (belongs_to_parent("session", 1), RuntimeError),
    (BatchError("2 of 3", [LinkExists("no", **FIELDS), NetnsNotFound("no", netns="blue")]), ExceptionGroup),
]


@pytest.mark.parametrize(("error", "builtin"), ALL, ids=lambda value: type(value).__name__)
def test_an_error_is_what_a_user_of_python_would_catch(error: VethError, builtin: type[Exception]) -> None:
    assert isinstance(error, builtin)
    assert isinstance(error, VethError)
    assert error.item is None


@pytest.mark.parametrize(("error", "builtin"), ALL, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_travels_with_all_it_carries(error: VethError, builtin: object, protocol: int) -> None:
    if not isinstance(error, BatchError):
        error.item = Veth(End("x"), End("y", "blue"))
        error.add_note("and a note")
    for again in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error)):
        assert type(again) is type(error)
        assert (str(again), repr(again), again.args) == (str(error), repr(error), error.args) or isinstance(
            error, BatchError
        )
        for name in (
            "errno",
            "extack",
            "request",
            "netns",
            "field",
            "value",
            "hint",
            "item",
            "awaited",
            "capability",
            "forked",
            "name",
            "seconds",
            "__notes__",
        ):
            assert getattr(again, name, None) == getattr(error, name, None)
    error.item = None
    error.__dict__.pop("__notes__", None)


@pytest.mark.parametrize(
    "given", [(each for each in "ab"), lambda: 0, sys.stderr], ids=["generator", "function", "file"]
)
def test_an_error_travels_without_what_cannot(given: object) -> None:
    error = InvalidValue("addresses", given, "must be a list")
    error.item = End, given
    for again in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert (type(again), str(again), again.field) == (InvalidValue, str(error), "addresses")
        assert isinstance(again.value, str)
    batch = pickle.loads(pickle.dumps(BatchError("1 of 2", [error])))
    assert [one.field for one in batch.exceptions] == ["addresses"]
    assert (error.value, error.item) == (given, (End, given))


def test_a_batch_travels_with_its_errors_and_their_items() -> None:
    first, second = LinkExists("no", **FIELDS), NetnsNotFound("no", netns="blue")
    first.item, second.item = ("x", "blue"), ("y", "blue")
    again = pickle.loads(pickle.dumps(BatchError("2 of 3", [first, second])))
    assert (str(again), [type(one) for one in again.exceptions]) == (
        "2 of 3 (2 sub-exceptions)",
        [LinkExists, NetnsNotFound],
    )
    assert [one.item for one in again.exceptions] == [("x", "blue"), ("y", "blue")]


def test_a_batch_stays_one_when_it_is_divided() -> None:
    batch = BatchError("2 of 3", [LinkExists("no"), NetnsNotFound("no")])
    mine, rest = batch.split(LinkExists)
    assert (type(mine), type(rest)) == (BatchError, BatchError)
    with pytest.raises(BatchError) as caught:
        try:
            raise batch
        except* NetnsNotFound:
            pass
    assert [type(one) for one in caught.value.exceptions] == [LinkExists]


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EEXIST, LinkExists),
        (errno.ENODEV, LinkNotFound),
        (errno.EPERM, NotPermitted),
        (errno.EACCES, NotPermitted),
        (errno.EOPNOTSUPP, NotSupported),
        (errno.EINVAL, NetlinkError),
        (0, NetlinkError),
    ],
)
def test_an_errno_has_its_class(number: int, kind: type[NetlinkError]) -> None:
    assert error_class(number) is kind


def test_an_errno_reads_as_words_and_its_name() -> None:
    assert errno_text(errno.EPERM) == "Operation not permitted (EPERM)"
    assert errno_text(99999) == "Unknown error 99999 (99999)"


def test_an_error_says_its_text_and_nothing_else() -> None:
    error = LinkExists("create veth: taken", errno=17)
    assert (str(error), error.errno, error.extack) == ("create veth: taken", 17, "")
    assert str(WaitTimeout("late")) == "late"
    assert str(NetnsExists("there")) == "there"


def test_a_copy_belongs_to_its_item_and_says_what_was_to_be_done() -> None:
    cause = OSError("first")
    error = NotPermitted("no", errno=1, netns="blue")
    error.__cause__ = cause
    copied = copy_for(error, "mine", "create veth")
    assert (str(copied), copied.item, copied.__cause__) == ("create veth: no", "mine", cause)
    assert isinstance(copied, NotPermitted)
    assert (copied.errno, copied.netns, copied.request) == (1, "blue", "create veth")
    assert (str(error), error.item) == ("no", None)
    assert str(copy_for(NetnsNotFound("gone"), "mine", "create veth")) == "gone"


@pytest.mark.parametrize(
    ("raised", "kind", "text"),
    [
        (OSError(errno.EMFILE, "x"), NetlinkError, r"talk: Too many open files \(EMFILE\) \(this process is out of"),
        (OSError(errno.EPERM, "x"), NotPermitted, r"talk: Operation not permitted \(EPERM\) \(.*CAP_SYS_ADMIN"),
        (OSError(errno.EACCES, "x", b"/proc/sys/net/x"), NotPermitted, r"\(EACCES\) \(.*CAP_NET_ADMIN"),
        (OSError(errno.EINVAL, "x"), NetlinkError, r"talk: Invalid argument \(EINVAL\)$"),
        (OSError("x"), NetlinkError, r"talk: Success \(0\)$"),
        (NotPermitted("no", errno=1, netns="fd:5"), NotPermitted, "^talk: no$"),
        (NetnsNotFound("gone"), NetnsNotFound, "^gone$"),
        (ZeroDivisionError("x"), ZeroDivisionError, "^x$"),
    ],
)
def test_an_error_of_the_system_is_told_in_our_words(raised: Exception, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text) as caught, system_errors("talk", "blue"):
        raise raised
    if isinstance(caught.value, NetlinkError):
        assert (caught.value.netns, caught.value.request) == ("blue", "talk")


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
def test_a_setting_that_may_not_be_written_needs_the_capability_of_the_administrator(number: int) -> None:
    """The kernel treats them as root (net_ctl_permissions, net/sysctl_net.c); the namespace has been entered before."""
    error = sysctl_error(PermissionError(number, "x"), "set rp_filter", "blue")
    assert isinstance(error, NotPermitted)
    assert (error.capability, error.errno, error.netns) == ("CAP_NET_ADMIN", number, "blue")
    assert "CAP_NET_ADMIN" in str(error)
    assert "entering" not in str(error)
    entering = not_permitted("entering needs it", "CAP_SYS_ADMIN", errno=number)
    refused = sysctl_error(entering, "set rp_filter", "blue")
    assert isinstance(refused, NotPermitted)
    assert refused.capability == "CAP_SYS_ADMIN"


@pytest.mark.parametrize("ref", ["x/" * 2000, "\udcb2/" * 2000, "netns:" + "/" * 4000, "k" * 4000 + ":1", "a" * 4090])
def test_an_error_about_a_long_value_is_short_though_its_hint_repeats_the_value(ref: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        ns.parse(ref)
    assert len(str(caught.value)) < 3000
