"""Parse the target of a hook: a command or a URL. Pure, except for reading a file that contains a URL."""

from __future__ import annotations

import base64
import os
import shlex
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from vethlib.errors import InvalidValue

__all__ = ["CommandTarget", "Target", "UrlTarget", "read_target"]

_HINT = "must be exec:/PATH/OF/COMMAND [ARGUMENT…], https://HOST/PATH, or url-file:PATH of a file with such a URL"


@dataclass(frozen=True, slots=True)
class CommandTarget:
    """A command, which is run without a shell. `shown` is its name for logs, because arguments may be secret."""

    argv: tuple[str, ...]

    @property
    def shown(self) -> str:
        """The command without its arguments."""
        return f"exec:{self.argv[0]}"


@dataclass(frozen=True, slots=True)
class UrlTarget:
    """A URL, to which events are sent with POST. `authorization` is the value of that header, or "".

    The path of a webhook is usually its password: `shown` and the repr do not contain it.
    """

    tls: bool
    host: str
    port: int
    path: str
    authorization: str

    @property
    def authority(self) -> str:
        """The host, and the port unless it is the usual one of the scheme, as for the Host header (RFC 9110)."""
        return self._with_port(without_zone(self.host))

    @property
    def shown(self) -> str:
        """The URL without user, password, path and query."""
        return f"http{'s' * self.tls}://{self._with_port(self.host)}/…"

    def _with_port(self, host: str) -> str:
        usual = 443 if self.tls else 80
        return (f"[{host}]" if ":" in host else host) + ("" if self.port == usual else f":{self.port}")

    def __repr__(self) -> str:
        return f"UrlTarget({self.shown!r})"


Target = CommandTarget | UrlTarget


def without_zone(host: str) -> str:
    """Return a host without the zone of an IPv6 address, which means something on this host only (RFC 6874)."""
    return host.partition("%")[0] if ":" in host else host


def read_target(text: str, field: str = "--hook") -> Target:
    """Parse the text of a hook, as for ``--hook``. Raises InvalidValue, which never contains a URL."""
    scheme, colon, rest = text.partition(":")
    if colon and scheme == "exec":
        return _command(rest, text, field)
    if colon and scheme == "url-file":
        return _url(_read(rest, field), field)
    if colon and scheme in ("http", "https"):
        return _url(text, field)
    raise InvalidValue(field, _hidden(text), _HINT)


def _hidden(text: str) -> str:
    return text if "/" not in text else f"{text.partition('/')[0]}/…"


def _command(rest: str, text: str, field: str) -> CommandTarget:
    try:
        argv = shlex.split(rest)
    except ValueError as error:
        raise InvalidValue(field, _hidden(text), f"{error}: quote arguments as for a shell".lower()) from None
    if not argv or not os.path.isabs(argv[0]):
        raise InvalidValue(
            field, _hidden(text), "must have the absolute path of the command, such as exec:/usr/local/bin/notify"
        )
    if "\0" in rest:
        raise InvalidValue(field, _hidden(text), "arguments must not contain NUL")
    return CommandTarget(tuple(argv))


def _read(path: str, field: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read(8192).strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it contains no URL"
        raise InvalidValue(field, f"url-file:{path}", f"cannot read {path}: {why}") from None


def _url(text: str, field: str) -> UrlTarget:
    try:
        split = urlsplit(text)
        port = split.port
        host = split.hostname or ""
        host = host.replace("%25", "%", 1) if ":" in host else host  # a zone, as RFC 6874 and browsers write it
        path = (split.path or "/") + (f"?{split.query}" if split.query else "")
    except ValueError:
        raise InvalidValue(field, "a URL", "must be https://HOST[:PORT]/PATH; the host or port is invalid") from None
    if split.scheme not in ("http", "https") or not host:
        raise InvalidValue(field, "a URL", "must be https://HOST[:PORT]/PATH")
    if not text.isascii() or any(c <= " " or c == "\x7f" for c in text):
        raise InvalidValue(
            field, f"a URL at {host}", "must contain only ASCII; write other characters, and spaces, as %XX"
        )
    if not _can_be_resolved(host):
        raise InvalidValue(field, "a URL", "its host is invalid: each part must have 1 to 63 characters")
    authorization = ""
    if split.username is not None:
        user = f"{unquote(split.username)}:{unquote(split.password or '')}"
        authorization = "Basic " + base64.b64encode(user.encode()).decode()
    tls = split.scheme == "https"
    return UrlTarget(tls, host, port or (443 if tls else 80), path, authorization)


def _can_be_resolved(host: str) -> bool:
    """Return whether the codec of getaddrinfo() accepts a host; zones and other texts are left to getaddrinfo()."""
    try:
        host.encode("idna")
    except UnicodeError:
        return ":" in host
    return True
