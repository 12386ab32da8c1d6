"""Where an etcd is and how it is spoken to: what a URL says of that, as pure text.

    etcd://[USER[:PASSWORD]@]HOST:PORT[,HOST:PORT…][?cacert=FILE&cert=FILE&key=FILE&…]

The files of certificates and passwords are read at each connection, so that renewed ones are taken.
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

PORT = 2379  # of clients, as registered
_FORM = "write etcd://HOST:PORT, or etcd://USER@HOST:PORT,HOST:PORT?password-file=FILE&cacert=FILE"
_SCHEME = re.compile("(?:etcd:|[a-z]+:(?=//))?/*")
# Outside the brackets of an IPv6 address a ':' is before a port. What else stands there may be a password.
_NO_PORT = re.compile(r"(\[[^\]/]*\])|:(?!(?:\d{1,5}|PORT)(?:[,/]|$))[^,/]*")
_HOST = re.compile(r"[\w.-]+:\d{1,5}/?", re.ASCII)
_URL = "(?i:etcd:|[a-z]+://)"
_QUOTED = r"""(?<!\w)(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")"""
# In quotes, as repr() writes them, a URL goes on to their end, since a password may hold anything; elsewhere it is a
# word, without the punctuation that a sentence puts behind it.
_IN_TEXT = re.compile(rf"(?P<quoted>{_QUOTED})|{_URL}[^\s\0]*[^\s\0.,:;)'\"]", re.DOTALL)
_IN_QUOTES = re.compile(rf"{_URL}.*(?=.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Address:
    """The members of an etcd, and what they want of a client.

    `lease` is after how many seconds without a sign of its life what an agent says of itself goes; `heartbeat` after
    how many seconds each it gives one. `url` is without the password.
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
    """A URL that can be shown: without the password, also where that stands in a wrong place, or has an '@' in it."""
    scheme = _SCHEME.match(url)
    assert scheme is not None
    rest = url[scheme.end() :]
    userinfo, at, hosts = rest.rpartition("@")
    user, colon, _ = userinfo.partition(":")
    if at and colon:
        userinfo = f"{user}:…"
    place, mark, query = hosts.partition("?")
    shown = place if at else _masked_hosts(place)
    hidden = bool(at and colon) or shown != place
    if hidden:  # what seems to be a path or an option may be the end of a password
        shown = re.sub("/.+", "/…", shown, flags=re.DOTALL)
    options = [_masked_option(one, hidden) for one in query.split("&")]
    return f"{scheme[0]}{userinfo}{at}{shown}{mark}{'&'.join(options)}"


def _masked_hosts(place: str) -> str:
    """Hosts, one of which may be a user with a password; what follows may be the rest of one with a ',' in it."""
    shown: list[str] = []
    hidden = False
    for one in place.split(","):
        if hidden and not _HOST.fullmatch(one):
            shown.append("…")
            continue
        shown.append(_NO_PORT.sub(lambda found: found[1] or ":…", one))
        hidden = hidden or shown[-1] != one
    return ",".join(shown)


def masked_in(text: str) -> str:
    """A message as it can be shown: each URL in it without the password, and all else as it is."""
    return _IN_TEXT.sub(_masked_word, text)


def _masked_word(found: re.Match[str]) -> str:
    if found["quoted"] is None:
        return masked(found[0])
    return _IN_QUOTES.sub(lambda url: masked(url[0]), found[0])


def _masked_option(option: str, hidden: bool) -> str:
    name, equals, _ = option.partition("=")
    if name in _OPTIONS or not option:
        return option
    return f"{'…' if hidden else name}{equals}{'…' if equals else ''}"


def parse_url(url: str) -> Address:
    """What a URL says. Raises :class:`InvalidValue`, in which no password is."""
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
        raise _wrong(url, f"no path: the keys are always those below /vnf-agent/LABEL/; {_FORM}")
    found = _options(url, query)
    if colon and "password_file" in found:
        raise _wrong(url, "two passwords: keep the password-file")
    if user and not (colon or "password_file" in found):
        raise _wrong(url, f"no password for {unquote(user)}: add ?password-file=FILE, or write USER:PASSWORD@")
    if not user and "password_file" in found:
        raise _wrong(url, "a password-file is for a user: write USER@ before the host")
    if bool(found.get("cert")) != bool(found.get("key")):
        raise _wrong(url, "cert and key go together: give both files, or none")
    if found.get("tls") is False and found.keys() & _TLS:
        raise _wrong(url, "tls=0 and certificates: leave one out")
    address = Address(
        masked(url),
        tuple(_endpoint(url, host) for host in hosts.split(",")),
        unquote(user),
        unquote(password),
        **{"tls": bool(found.keys() & _TLS), **found},
    )
    enough = 2 * address.heartbeat
    if address.lease < enough:
        raise _wrong(url, f"a lease of {address.lease} s may end between heartbeats: make it {enough:g} or more")
    return address


def _options(url: str, query: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in _OPTIONS:
            near = get_close_matches(name, _OPTIONS, n=1, cutoff=0.0)[0]
            # It may be the end of a password, of which a '?' was taken for the end of the place.
            if "@" in query or name not in masked(url):
                cure = f"there is no such option, the nearest one is {near}; a '?' in a password is written %3F"
                raise _wrong(url, cure)
            raise _wrong(url, f"there is no option {name!r}; the nearest one is {near}")
        read, cure = _OPTIONS[name]
        try:
            found[name.replace("-", "_")] = read(text)
        except ValueError:
            raise _wrong(url, f"{name}: {cure}") from None
    return found


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
    "cacert": (_text, "name the file of the CA that signed the server's certificate"),
    "cert": (_text, "name the file of the client's certificate"),
    "key": (_text, "name the file of the key of the client's certificate"),
    "server-name": (_text, "write the name that is in the server's certificate"),
    "tls": (_flag, "write 1 or 0"),
    "password-file": (_text, "name a file that holds the password, and nothing else"),
    "lease": (_seconds(2, 86400, int), "write whole seconds from 2 to 86400"),
    "heartbeat": (_seconds(0.1, 3600, float), "write seconds from 0.1 to 3600"),
}


def _endpoint(url: str, host: str) -> str:
    """``HOST:PORT`` of one of them, with the port that may be left out."""
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host, str(PORT)
    if not name or (":" in name and not name.startswith("[")) or any(character.isspace() for character in name):
        raise _wrong(url, f"{masked(host)!r} is no HOST:PORT: {_FORM}")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise _wrong(url, f"the port of {name} has to be from 1 to 65535")
    return f"{name}:{port}"


def _wrong(url: str, cure: str) -> InvalidValue:
    return InvalidValue("--store", masked(url), cure)
