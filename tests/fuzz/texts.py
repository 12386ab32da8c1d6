"""Readers of texts: of a command line, of a topology, of URLs, and of the marks of links."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from vethlib import links, ns
from vethlib.agent.config.mark import check_label, is_ours, read_alias
from vethlib.agent.hooks.target import read_target
from vethlib.agent.limits import parse_limits
from vethlib.agent.stores import keys
from vethlib.agent.stores.etcd.address import masked, masked_in, parse_url
from vethlib.agent.stores.opening import place, shown
from vethlib.cli.arguments.parser import UsageError
from vethlib.cli.arguments.references import parse_link
from vethlib.cli.completion.words import completions
from vethlib.cli.render.linktext import ref_text
from vethlib.errors import InvalidValue
from vethlib.ns.reference import check_netns_name
from vethlib.topology.design.layout import lay_out
from vethlib.topology.design.text import parse

from . import mutation
from .engine import Target

__all__ = ["TARGETS"]


def _text(reader: Callable[[str], object]) -> Callable[[bytes], object]:
    """A reader of bytes, which are what a program finds in its arguments. Its errors have to be of sane size."""

    def run(data: bytes) -> object:
        try:
            return reader(data.decode("utf-8", "surrogateescape"))
        except InvalidValue as error:
            if len(str(error)) > 4 * len(data) + 2000:
                raise AssertionError(f"{len(str(error))} characters for {len(data)} bytes") from None
            raise

    return run


def _topology(text: str) -> object:
    described = parse(text)
    if len(described.members) + len(described.wires) > 60:
        return "large"
    return lay_out(described)


def _etcd_url(text: str) -> object:
    masked_in(text)
    try:
        return parse_url(text)
    finally:
        masked(text if text.startswith("etcd:") else f"etcd://{text}")


def _password(text: str) -> object:
    """A password is never shown, whatever stands around it."""
    secret = "s3cr3t0815"
    url = f"etcd://user:{secret}@{text.replace(secret, '')}"
    assert secret not in masked(url), masked(url)
    told = ""
    try:
        parse_url(url)
    except InvalidValue as error:
        told = str(error)
    assert secret not in told, told
    return bool(told)


def _store_url(text: str) -> object:
    shown(text)
    return place(text)


def _hook(text: str) -> object:
    if text.startswith("url-file:"):
        return None  # reads the file, which may be any
    return read_target(text)


def _reference(text: str) -> object:
    reference = ns.parse(text)
    assert ns.parse(str(reference)) == reference
    return reference.kind, reference.kind in ("fd", "microservice") or reference.path.startswith("/")


def _link_at(text: str) -> object:
    name, ref = parse_link(text)
    assert parse_link(f"{name}@{ref}")[1] == ref
    return ref_text(ref)


def _alias(text: str) -> object:
    mark = read_alias(text)
    if mark is not None:
        assert read_alias(str(mark)) == mark
        assert is_ours(0, text, mark.label)
    return mark is None


def _key(text: str) -> object:
    return keys.place_of(text, "vpp1"), keys.name_of(text, "vpp1")


def _name(text: str) -> object:
    """The checks of a link's values, each by itself."""
    passed = []
    checks: tuple[Callable[[str], object], ...] = (
        links.check_name,
        links.check_kernel_name,
        links.check_lookup_name,
        links.check_mac,
        links.check_alias,
        lambda text: links.check_addresses([text]),
        check_label,
        check_netns_name,
    )
    for check in checks:
        try:
            check(text)
        except InvalidValue:
            continue
        passed.append(check)
        assert check == links.check_alias or "\0" not in text
    return len(passed)


def _words(text: str) -> object:
    """What may follow on a command line that is being typed."""
    found = completions(text.split(" "))
    return len(found.words)


_URLS: Final = (
    b"etcd://127.0.0.1:2379",
    b"etcd://user:pass@a:1,b:2,[::1]:3?ca=/a&cert=/b&key=/c&tls=1&lease=15&heartbeat=2&server_name=x",
    b"etcd:///run/etcd.sock",
)
_url_words: Final = ("etcd://", "?", "&", ",", "[::1]", "lease=", "heartbeat=", "tls=", "user:pass@", "unix:", "#", ";")
_REFS: Final = (b"netns:blue", b"pid:1", b"fd:3", b"path:/run/netns/x", b"microservice:web", b"home", b"blue")
_ref_words: Final = ("netns:", "pid:", "fd:", "path:", "microservice:", "label:", "home", "self")
_ALIASES: Final = (b"vethlib label=vpp1 name=veth1", b"vethlib label=a name=b mac")
_LINES: Final = (
    b"create a@ns1 b@ns2 --mtu 1500 --address-a 10.0.0.1/24 ",
    b"--json show @ns1 --kind",
    b"agent --store etcd://x --label y --limit queues=3 --",
    b"apply examples/pair --prune --label=x -",
    b"completion ba",
)

TARGETS: Final = (
    Target(
        "topology",
        _text(_topology),
        mutation.texts(
            "--", "(", ")", ":", "bridge ", "node ", "mtu=", "10.0.0.1/24", "2001:db8::1/64", "#", ";", "\n"
        ),
        (b"a -- b", b"bridge br\na:eth0 (10.0.0.1/24) -- br mtu=1400\nb (10.0.0.2/24, fe80::1/64) -- br # c", b"a--b"),
        (InvalidValue,),
    ),
    Target("etcd-url", _text(_etcd_url), mutation.texts(*_url_words), _URLS, (InvalidValue,)),
    Target("password", _text(_password), mutation.texts(*_url_words), _URLS),
    Target(
        "store-url",
        _text(_store_url),
        mutation.texts("dir:", "memory:", "http://", *_url_words),
        _URLS,
        (InvalidValue,),
    ),
    Target(
        "hook",
        _text(_hook),
        mutation.texts("exec:", "http://", "https://", "%00", *_url_words),
        (b"exec:/bin/true 'a b' $x", b"https://user:pw@host:443/path?a=b", b"http://[::1]:80/"),
        (InvalidValue,),
    ),
    Target("reference", _text(_reference), mutation.texts(*_ref_words), _REFS, (InvalidValue,)),
    Target(
        "link-at", _text(_link_at), mutation.texts("@", *_ref_words), (b"veth1@ns1", b"a@pid:1", b"x"), (InvalidValue,)
    ),
    Target("alias", _text(_alias), mutation.texts("label=", "name=", " mac", "vethlib "), _ALIASES),
    Target(
        "limits",
        _text(lambda text: parse_limits([text])),
        mutation.texts("queues=", "4M", "KiB", ",", "value-bytes", "2.5"),
        (b"queues=8,file_bytes=4M", b"metrics_seconds=2.5"),
        (InvalidValue,),
    ),
    Target(
        "key",
        _text(_key),
        mutation.texts("/vnf-agent/", "linux/config/v1/interface/", "key:"),
        (keys.key_of("vpp1", "veth1").encode(), b"veth1", b"key:x"),
        (InvalidValue,),
    ),
    Target(
        "name", _text(_name), mutation.texts("fe80::1%eth0", "/", "::"), (b"eth0", b"02:00:00:00:00:01", b"10.0.0.1/24")
    ),
    Target("words", _text(_words), mutation.texts("--", "--json", "=", "@"), _LINES, (UsageError,), seconds=2.0),
)
