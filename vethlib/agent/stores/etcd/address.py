"""Parse the URL of an etcd, and mask passwords in URLs. Pure.

    etcd://[USER[:PASSWORD]@]HOST:PORT[,HOST:PORT…][?cacert=FILE&cert=FILE&key=FILE&…]

The files of certificates and passwords are read for each connection, so that renewed ones are used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any
from urllib.parse import parse_qsl, unquote

from vethlib.errors import InvalidValue

__all__ = ["Address", "masked", "masked_in", "parse_url"]

PORT = 2379  # the registered port for clients
_FORM = "must be etcd://HOST:PORT, or etcd://USER@HOST:PORT,HOST:PORT?password-file=FILE&cacert=FILE"
_SCHEME = re.compile("(?:etcd:|[a-z]+:(?=//))?/*")
# Outside the brackets of an IPv6 address, a ':' precedes a port. Any other text there may be a password.
_NO_PORT = re.compile(r"(\[[^\[\]/]*\])|:(?!(?:\d{1,5}|PORT)(?:[,/]|$))[^,/]*")
_HOST = re.compile(r"[\w.-]+:\d{1,5}/?", re.ASCII)
# Repetitions have a bound, so that searching a text of only letters or quotes takes time proportional to its length.
_URL = "(?i:etcd:|[a-z]{1,20}://)"
_QUOTED = r"""(?<!\w)(?:'(?:\\.|[^'\\]){0,1300}'|"(?:\\.|[^"\\]){0,1300}")"""
# In quotes, as repr() writes them, a URL extends to the closing quote, since a password may contain anything; elsewhere
# it is a word, without the punctuation after it.
_IN_TEXT = re.compile(rf"(?P<quoted>{_QUOTED})|{_URL}[^\s\0]*[^\s\0.,:;)'\"]", re.DOTALL)
_IN_QUOTES = re.compile(rf"{_URL}.*(?=.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Address:
    """The members of an etcd, and how to connect to them.

    `lease` is the number of seconds without a heartbeat after which an agent's status is deleted, `heartbeat` the
    seconds between heartbeats. `url` is without the password.
    """

    url: str
    endpoints: tuple[str, ...]
    user: str = ""
    password: str = field(default="", repr=False)
    password_file: str = ""
    tls: bool = False
    cacert: str = ""
    cert: str = ""
    key: str = ""
    server_name: str = ""
    lease: int = 15
    heartbeat: float = 2.0


def masked(url: str) -> str:
    """Return a URL without its password, even if that is in a wrong place or contains an '@'."""
    scheme = _SCHEME.match(url)
    assert scheme is not None
    rest = url[scheme.end() :]
    userinfo, at, hosts = rest.rpartition("@")
    user, colon, _ = userinfo.partition(":")
    if at and colon:
        userinfo = f"{user}:…"
    place, mark, query = hosts.partition("?")
    shown = place if at else _masked_hosts(place)
    misplaced = shown != place
    hidden = bool(at and colon) or misplaced
    if hidden:  # an apparent path or option may be the end of a password
        shown = re.sub("/.+", "/…", shown, flags=re.DOTALL)
    options = [_masked_option(option, hidden=hidden, misplaced=misplaced) for option in query.split("&")]
    return f"{scheme[0]}{userinfo}{at}{shown}{mark}{'&'.join(options)}"


def _masked_hosts(place: str) -> str:
    """Mask hosts: one may be a user with a password, and the text after it the rest of a password with a ','."""
    shown: list[str] = []
    hidden = False
    for host in place.split(","):
        if hidden and not _HOST.fullmatch(host):
            shown.append("…")
            continue
        shown.append(_NO_PORT.sub(lambda match: match[1] or ":…", host))
        hidden = hidden or shown[-1] != host
    return ",".join(shown)


def masked_in(text: str) -> str:
    """Return a message with the passwords of all URLs in it masked."""
    return _IN_TEXT.sub(_masked_word, text)


def _masked_word(match: re.Match[str]) -> str:
    if match["quoted"] is None:
        return masked(match[0])
    return _IN_QUOTES.sub(lambda url: masked(url[0]), match[0])


def _masked_option(option: str, *, hidden: bool, misplaced: bool) -> str:
    """Mask what may be the rest of a password: without a host before it, an option with a known name may be, too."""
    name, equals, _ = option.partition("=")
    is_known = name in _OPTIONS
    if not option or (is_known and not misplaced):
        return option
    return f"{name if is_known or not hidden else '…'}{equals}{'…' if equals else ''}"


def parse_url(url: str) -> Address:
    """Parse the URL of an etcd. Raises :class:`InvalidValue`, which contains no password."""
    rest = url.removeprefix("etcd://")
    if rest == url:
        raise _wrong(url, _FORM)
    place, _, query = rest.partition("?")
    userinfo, at, hosts = place.rpartition("@")
    user, colon, password = userinfo.partition(":")
    hosts = hosts.removesuffix("/")
    if (at and not user) or not hosts:
        raise _wrong(url, _FORM)
    if "/" in hosts:
        raise _wrong(url, f"must have no path, because keys are always below /vnf-agent/LABEL/; {_FORM}")
    options = _options(url, query)
    if colon and "password_file" in options:
        raise _wrong(url, "has two passwords: keep the password-file")
    if user and not (colon or "password_file" in options):
        raise _wrong(url, f"has no password for {unquote(user)}: add ?password-file=FILE, or write USER:PASSWORD@")
    if not user and "password_file" in options:
        raise _wrong(url, "has a password-file but no user: write USER@ before the host")
    if bool(options.get("cert")) != bool(options.get("key")):
        raise _wrong(url, "must have both cert and key, or neither")
    if options.get("tls") is False and options.keys() & _TLS:
        raise _wrong(url, "has tls=0 and certificates: leave one out")
    address = Address(
        masked(url),
        tuple(_endpoint(url, host) for host in hosts.split(",")),
        unquote(user),
        unquote(password),
        **{"tls": bool(options.keys() & _TLS), **options},
    )
    enough = 2 * address.heartbeat
    if address.lease < enough:
        raise _wrong(
            url, f"has a lease of {address.lease} s, which may end between heartbeats: it must be at least {enough:g} s"
        )
    return address


def _options(url: str, query: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in _OPTIONS:
            near = "".join(get_close_matches(name, _OPTIONS, n=1, cutoff=0.5))
            meant = f"did you mean {near}?" if near else f"must be some of {', '.join(sorted(_OPTIONS))}."
            # It may be the end of a password with a '?', which was taken for the start of the options.
            if "@" in query or name not in masked(url):
                raise _wrong(url, f"unknown option; {meant} In a password, write %3F for '?'")
            raise _wrong(url, f"unknown option {name!r}; {meant.removesuffix('.')}")
        read, cure = _OPTIONS[name]
        field = name.replace("-", "_")
        if field in options:
            raise _wrong(url, f"has {name} twice: leave one out")
        try:
            options[field] = read(text)
        except ValueError:
            raise _wrong(url, f"{name} {cure}") from None
    return options


def _text(text: str) -> str:
    if not text:
        raise ValueError
    return text


def _flag(text: str) -> bool:
    if text not in ("1", "0"):
        raise ValueError
    return text == "1"


def _seconds(low: float, high: float, kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        value = kind(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return read


_TLS = {"cacert", "cert", "key", "server_name"}
_OPTIONS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "cacert": (_text, "must be the file of the CA that signed the server's certificate"),
    "cert": (_text, "must be the file of the client's certificate"),
    "key": (_text, "must be the file of the client certificate's key"),
    "server-name": (_text, "must be the name in the server's certificate"),
    "tls": (_flag, "must be 1 or 0"),
    "password-file": (_text, "must be a file that contains only the password"),
    "lease": (_seconds(2, 86400, int), "must be whole seconds from 2 to 86400"),
    "heartbeat": (_seconds(0.1, 3600, float), "must be seconds from 0.1 to 3600"),
}


def _endpoint(url: str, host: str) -> str:
    """Return the ``HOST:PORT`` of a member; the port may be left out in the URL."""
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host, str(PORT)
    if not name or (":" in name and not name.startswith("[")) or any(character.isspace() for character in name):
        raise _wrong(url, f"{masked(host)!r} is not HOST:PORT: {_FORM}")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise _wrong(url, f"the port of {name} must be from 1 to 65535")
    return f"{name}:{port}"


def _wrong(url: str, cure: str) -> InvalidValue:
    return InvalidValue("--store", masked(url), cure)
