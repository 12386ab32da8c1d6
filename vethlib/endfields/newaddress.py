"""Addresses with more than a prefix length, as given to an end (:class:`NewAddress`).

1. Most addresses have no more than that, and are plain ``ipaddress`` interfaces. A :class:`NewAddress` is such an
   interface, too, but equal only to another with the same attributes.
2. An attribute that is not given is absent: without `broadcast`, the address has none. Only if no label is given may
   the address have any, because the kernel changes labels when a link is renamed (inetdev_changename,
   net/ipv4/devinet.c).
3. The kernel changes only the lifetimes of an IPv4 address, so an address that differs in anything else is removed and
   added again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Interface,
    IPv6Network,
)
from typing import Any, Final

from vethlib._nl.addr import ADDED_FLAGS, AddrExtras, addr_body, extras, is_own_label, parse_addr
from vethlib._nl.const import IFA_F_NODAD, IFA_F_NOPREFIXROUTE, IFA_F_PERMANENT
from vethlib._nl.wire import decoded, encoded
from vethlib.addresses import Address, Identity, IPAddress, IPInterface
from vethlib.errors import InvalidValue

from .plainaddress import check_plain

__all__ = ["WORDS", "NewAddress", "as_given", "attributes_text", "read_address", "scope_word"]

_FIELD: Final = "addresses"

SCOPES: Final = {"global": 0, "site": 200, "link": 253, "host": 254}
"""enum rt_scope_t, include/uapi/linux/rtnetlink.h."""

_NAMES_OF_SCOPES: Final = {number: name for name, number in SCOPES.items()}
_FOREVER: Final = 0xFFFF_FFFF  # seconds: infinite (INFINITY_LIFE_TIME, include/net/addrconf.h)
_LONGEST: Final = 300  # characters of a text


class NewAddress:
    """An address for a link, with attributes: ``NewAddress("10.0.0.1/24", broadcast="+", label="veth1:x")``.

    `address` is an ``ipaddress`` interface or a text in the syntax of `ip address`, which may include all attributes:
    ``NewAddress("10.0.0.1 peer 10.0.0.2/32 scope link")``. If there is a `peer`, the prefix length belongs to the peer.
    `broadcast` is an IPv4 address, or "+" or "-" for the last or first of the subnet. `label` is that of an IPv4
    address (1 to 15 bytes), `scope` "global", "site", "link", "host" or a number. With `nodad`, an IPv6 address is used
    without duplicate address detection; with `noprefixroute`, the kernel adds no route to its network. The kernel
    deprecates the address after `preferred` seconds, and removes it after `valid` seconds; None: never.

    Raises :class:`InvalidValue`, with the field "addresses", for a value that the kernel would refuse.
    """

    broadcast: IPv4Address | None
    label: str
    scope: int
    nodad: bool
    noprefixroute: bool
    valid: int | None
    preferred: int | None
    _peer: IPAddress | None
    _plain: IPInterface

    def __new__(cls, address: str | IPInterface | NewAddress, **_given: Any) -> NewAddress:  # noqa: D102 - it is the class
        words = address.split(None, 1) if isinstance(address, str) else []
        is_six = ":" in words[0] if words else getattr(address, "version", 4) == 6
        made: type[NewAddress] = _NewAddress6 if is_six else _NewAddress4
        return object.__new__(made)

    def __init__(
        self,
        address: str | IPInterface | NewAddress,
        *,
        peer: str | IPv4Interface | IPv6Interface | None = None,
        broadcast: str | IPv4Address | None = None,
        label: str | None = None,
        scope: str | int | None = None,
        nodad: bool | None = None,
        noprefixroute: bool | None = None,
        valid: int | None = None,
        preferred: int | None = None,
    ) -> None:
        given: dict[str, Any] = {"peer": peer, "broadcast": broadcast, "label": label, "scope": scope, "nodad": nodad}
        given |= {"noprefixroute": noprefixroute, "valid": valid, "preferred": preferred}
        given = {name: value for name, value in given.items() if value is not None}
        if isinstance(address, str | NewAddress):
            text = str(address)
            address, written = _words(text)
            for name in written.keys() & given.keys():
                raise InvalidValue(_FIELD, text, f"{name} is given twice: in the text, and as an argument")
            given |= written
        plain, far = _own_and_peer(address, given.get("peer"))
        super().__init__((int(plain), plain.network.prefixlen))  # type: ignore[call-arg]
        self._plain = plain
        self._peer = None if far is None or far.ip == plain.ip else far.ip
        network = plain.network if far is None else far.network
        self.broadcast = _broadcast(given.get("broadcast"), network)
        self.label = _label(given.get("label", ""), network)
        self.scope = _scope(given.get("scope"), plain)
        self.nodad, self.noprefixroute = (_flag(given, name) for name in ("nodad", "noprefixroute"))
        if self.nodad and plain.version == 4:
            raise InvalidValue(_FIELD, str(plain), "nodad is for IPv6: IPv4 has no duplicate address detection")
        self.valid, self.preferred = _lifetimes(given.get("valid"), given.get("preferred"))

    @property
    def plain(self) -> IPInterface:
        """The address with its prefix length, without attributes."""
        return self._plain

    @property
    def peer(self) -> IPAddress | None:
        """The address of the other end of a point-to-point address, otherwise None."""
        return self._peer

    @property
    def identity(self) -> Identity:
        """The identity of the address among those of its link."""
        return self._plain, self._peer

    @property
    def expires(self) -> bool:
        """Whether it has lifetimes."""
        return (self.valid, self.preferred) != (None, None)

    @property
    def _extras(self) -> AddrExtras:
        flags = (IFA_F_NODAD if self.nodad else 0) | (IFA_F_NOPREFIXROUTE if self.noprefixroute else 0)
        broadcast = b"" if self.broadcast is None else self.broadcast.packed
        peer = b"" if self._peer is None else self._peer.packed
        return AddrExtras(peer, broadcast, encoded(self.label), self.scope, flags, self.valid, self.preferred)

    def on(self, index: int, proto: int) -> Address:
        """Return the address that it becomes on link `index`, with the owner mark `proto`."""
        body = addr_body(index, self._plain.packed, self._plain.network.prefixlen, proto, self._extras)
        flags = parse_addr(body).flags | (0 if self.valid is not None else IFA_F_PERMANENT)
        return Address(index, self._plain, flags, proto, body, self._peer)

    def is_met_by(self, address: Address) -> bool:
        """Return whether an address of a link is this one, with the same attributes (rule 2), apart from lifetimes."""
        if address.identity != self.identity:
            return False
        if not address.message:
            return (address.flags & ADDED_FLAGS) == self._extras.flags
        has, wanted = extras(parse_addr(address.message)), self._extras
        if not self.label:
            has = has._replace(label=b"")
        if self._plain.version == 6:
            has = has._replace(scope=wanted.scope)
        return has[:5] == wanted[:5]

    def lives_like(self, address: Address) -> bool:
        """Return whether an address of a link is permanent, or expires, like this one; how soon does not matter."""
        if not self.expires:
            return not (address.expires or address.deprecated)
        return address.expires == (self.valid is not None)

    def __str__(self) -> str:
        return " ".join(self._text())

    def _text(self) -> list[str]:
        own = self._plain
        words = [str(own)] if self._peer is None else [str(own.ip), "peer", f"{self._peer}/{own.network.prefixlen}"]
        if self.broadcast is not None:
            words += ["brd", str(self.broadcast)]
        if own.version == 4 and self.scope:
            words += ["scope", _NAMES_OF_SCOPES.get(self.scope, str(self.scope))]
        words += ["label", self.label] if self.label else []
        words += [name for name in ("nodad", "noprefixroute") if getattr(self, name)]
        for name, seconds in (("valid_lft", self.valid), ("preferred_lft", self.preferred)):
            words += [name, str(seconds)] if seconds is not None else []
        return words

    def __repr__(self) -> str:
        return f"NewAddress({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NewAddress) and self._all == other._all

    def __hash__(self) -> int:
        return hash(self._all)

    @property
    def _all(self) -> tuple[object, ...]:
        return (*self.identity, *self._extras)

    def __reduce__(self) -> tuple[Callable[..., NewAddress], tuple[str]]:
        return NewAddress, (str(self),)


class _NewAddress4(NewAddress, IPv4Interface):
    _plain: IPv4Interface

    def __add__(self, number: int) -> IPv4Interface:  # type: ignore[override]
        return self._plain + number

    def __sub__(self, number: int) -> IPv4Interface:  # type: ignore[override]
        return self._plain - number


class _NewAddress6(NewAddress, IPv6Interface):
    _plain: IPv6Interface

    def __add__(self, number: int) -> IPv6Interface:  # type: ignore[override]
        return self._plain + number

    def __sub__(self, number: int) -> IPv6Interface:  # type: ignore[override]
        return self._plain - number


def scope_word(address: Address) -> str:
    """Return the scope of an address as `ip` writes it: "global", "link", or a number if it has no name."""
    return _NAMES_OF_SCOPES.get(address.scope, str(address.scope))


def attributes_text(address: Address, name: str) -> str:
    """Return the attributes of an address of the link called `name` as `ip` writes them; "" if it has none.

    The defaults are left out: global scope, the name of the link as the label, unlimited lifetimes.
    """
    words = [] if address.broadcast is None else ["brd", str(address.broadcast)]
    if address.interface.version == 4:
        words += ["scope", scope_word(address)] if address.scope else []
        words += ["label", address.label] if address.label not in ("", name) else []
    words += [flag for flag in _FLAGS if getattr(address, flag)]
    for lifetime, seconds in (("valid_lft", address.valid), ("preferred_lft", address.preferred)):
        words += [lifetime, f"{seconds}sec"] if seconds is not None else []
    return " ".join(words)


def as_given(address: Address, name: str) -> IPInterface:
    """Return an address of the link called `name` in the form in which it was given, apart from lifetimes."""
    has = extras(parse_addr(address.message)) if address.message else AddrExtras(flags=address.flags & ADDED_FLAGS)
    own, label = address.interface, decoded(has.label)
    given: Any = NewAddress(
        own if address.peer is None else str(own.ip),
        peer=None if address.peer is None else f"{address.peer}/{own.network.prefixlen}",
        broadcast=IPv4Address(has.broadcast) if has.broadcast else None,
        label=None if own.version == 6 or is_own_label(label, name) else label,
        scope=None if own.version == 6 else has.scope,
        nodad=bool(has.flags & IFA_F_NODAD) and own.version == 6,
        noprefixroute=bool(has.flags & IFA_F_NOPREFIXROUTE),
    )
    return address.interface if given == NewAddress(address.interface) else given


def read_address(text: str, field: str) -> IPInterface:
    """Return the :class:`NewAddress` that a text describes. Raises InvalidValue with that field."""
    try:
        address: Any = NewAddress(text)
        return address  # type: ignore[no-any-return]
    except InvalidValue as error:
        raise InvalidValue(field, error.value, error.hint) from None


def _own_and_peer(address: str | IPInterface, peer: object) -> tuple[IPInterface, IPInterface | None]:
    """Return an address and its peer, both with the prefix length, which is written after the peer, if there is one."""
    if peer is None:
        return check_plain(address, _FIELD), None
    if not isinstance(address, str):
        address = check_plain(address, _FIELD)
    if not isinstance(peer, str | IPv4Interface | IPv6Interface):
        raise InvalidValue(_FIELD, peer, "a peer must be a string or an ipaddress interface")
    own, _, length = str(address).partition("/")
    far_ip, _, far_length = str(peer).partition("/")
    if not far_length or length not in ("", far_length):
        cure = f"the prefix length belongs to the peer, as in {own} peer {far_ip}/{far_length or length or 32}"
        raise InvalidValue(_FIELD, f"{address} peer {peer}", cure)
    far, plain = check_plain(f"{far_ip}/{far_length}", _FIELD), check_plain(f"{own}/{far_length}", _FIELD)
    if plain.version != far.version:
        raise InvalidValue(_FIELD, str(peer), f"the peer must be of the same family as {own}")
    return plain, far


_ALIASES: Final = {"brd": "broadcast", "valid_lft": "valid", "preferred_lft": "preferred"}
_VALUED: Final = ("peer", "broadcast", "label", "scope", "valid", "preferred")
_FLAGS: Final = ("nodad", "noprefixroute")

WORDS: Final = frozenset({*_ALIASES, *_VALUED, *_FLAGS})
"""The words that may follow an address."""


def _words(text: str) -> tuple[str, dict[str, Any]]:
    """Read an address and the attributes after it."""
    address, *words = text[:_LONGEST].split() or [""]
    if len(text) > _LONGEST:
        raise InvalidValue(_FIELD, text, f"must be an address, with attributes in up to {_LONGEST} characters")
    given: dict[str, Any] = {}
    while words:
        word = words.pop(0)
        name = _ALIASES.get(word, word)
        if name in given:
            raise InvalidValue(_FIELD, text, f"{word} is given twice")
        if name in _FLAGS:
            given[name] = True
        elif name in _VALUED and words:
            value = words.pop(0)
            given[name] = _seconds(value, text) if name in ("valid", "preferred") else value
        else:
            known = "peer IP/PREFIX, brd IP, label NAME, scope NAME, nodad, noprefixroute, valid_lft SECONDS"
            wrong = f"{word!r} needs a value" if name in _VALUED else f"{word!r} is not an attribute"
            raise InvalidValue(_FIELD, text, f"{wrong}: after an address there may be {known}, preferred_lft SECONDS")
    # Like `ip`: an unlimited lifetime counts as not given.
    return address, {name: value for name, value in given.items() if value is not None}


def _seconds(word: str, text: str) -> int | None:
    if word == "forever":
        return None
    digits = word.removesuffix("sec")
    if not _is_number(digits):
        raise InvalidValue(_FIELD, text, f"a lifetime is a number of seconds or 'forever', not {word!r}")
    return int(digits)


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdecimal() and len(word) <= 10


def _broadcast(given: str | IPv4Address | None, network: IPv4Network | IPv6Network) -> IPv4Address | None:
    if given is None:
        return None
    if isinstance(network, IPv6Network):
        raise InvalidValue(_FIELD, _said("brd", given), "IPv6 has no broadcast: leave it out")
    if given in ("+", "-"):
        if network.prefixlen > 30:
            cure = "a subnet of one or two addresses has no broadcast address: leave it out"
            raise InvalidValue(_FIELD, _said("brd", given), cure)
        address = network.broadcast_address if given == "+" else network.network_address
    else:
        try:
            address = IPv4Address(given)
        except (AddressValueError, ValueError):
            cure = "must be '+', '-' or an IPv4 address, as in 10.0.0.255"
            raise InvalidValue(_FIELD, _said("brd", given), cure) from None
    # To the kernel, 0.0.0.0 means none (inet_fill_ifaddr, net/ipv4/devinet.c).
    return None if address.is_unspecified else address


def _label(label: Any, network: IPv4Network | IPv6Network) -> str:
    if label == "" and isinstance(label, str):
        return ""
    if network.version == 6:
        raise InvalidValue(_FIELD, _said("label", label), "an IPv6 address has no label: leave it out")
    # The kernel accepts any text; programs that show labels, such as ifconfig, accept a name, or two with a colon.
    fits = isinstance(label, str) and _A_LABEL.fullmatch(label) and label.isprintable() and len(encoded(label)) <= 15
    if not fits:
        raise InvalidValue(
            _FIELD, _said("label", label), "a label has 1 to 15 bytes, as the name of a link has, or veth1:x"
        )
    return str(label)


_A_LABEL: Final = re.compile(r"[^\s/:%]+(:[^\s/:%]+)?")


def _scope(given: str | int | None, plain: IPInterface) -> int:
    if isinstance(plain, IPv6Interface):
        # ipv6_addr_scope() decides (net/ipv6/addrconf_core.c), whatever is sent.
        own = Address(1, plain, 0, 0).scope if not plain.ip.is_loopback else SCOPES["host"]
    else:
        own = 0
    if given is None:
        return own
    number = given
    if isinstance(given, str):
        number = SCOPES.get(given, int(given) if _is_number(given) else -1)
    if type(number) is not int or not 0 <= number <= 254:
        raise InvalidValue(_FIELD, _said("scope", given), "must be global, site, link, host or a number up to 254")
    if plain.version == 6 and number != own:
        cure = f"the scope of an IPv6 address is part of it: it is {_NAMES_OF_SCOPES[own]}"
        raise InvalidValue(_FIELD, _said("scope", given), cure)
    return number


def _said(name: str, value: object) -> str:
    """Return an attribute as it would be written in a text."""
    try:
        return f"{name} {value}"
    except ValueError:  # Python does not convert an int with thousands of digits to text
        return name


def _flag(given: dict[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if value is not True and value is not False:
        raise InvalidValue(_FIELD, _said(name, value), "must be True or False")
    return bool(value)


def _lifetimes(valid: int | None, preferred: int | None) -> tuple[int | None, int | None]:
    for name, least, seconds in (("valid_lft", 1, valid), ("preferred_lft", 0, preferred)):
        if seconds is not None and (type(seconds) is not int or not least <= seconds < _FOREVER):
            raise InvalidValue(
                _FIELD, _said(name, seconds), f"must be a number of seconds from {least} to {_FOREVER - 1}"
            )
    if valid is not None and preferred is None:
        preferred = valid
    if valid is not None and preferred is not None and preferred > valid:
        raise InvalidValue(_FIELD, f"preferred_lft {preferred}", f"must not be longer than valid_lft, which is {valid}")
    return valid, preferred
