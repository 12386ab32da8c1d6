"""A link in words: its namespace, its state, its addresses and its changes."""

from __future__ import annotations

from vethlib.cli.term.text import paint
from vethlib.links import Address, Link
from vethlib.text import change_text

__all__ = ["address_text", "change", "link_state", "operstate_word", "painted_state", "ref_text"]

_ROLES = {"UP": "good", "DOWN": "bad"}


def ref_text(ref: str) -> str:
    """Return a namespace reference for people: the bare name of a named namespace, "home" for the home namespace."""
    if ref == "netns:home":
        return ref
    return ref.removeprefix("netns:") or "home"


def operstate_word(link: Link) -> str:
    """Return the operational state in lower case: ``down`` only for a link that was set down, else ``no-carrier``.

    For an end whose peer is down, the kernel reports "lowerlayerdown" only if both are in the same namespace.
    """
    if not link.up:
        return "down"
    return "no-carrier" if link.operstate == "down" else link.operstate


def link_state(link: Link) -> str:
    """Return UP, DOWN, or a state in between, such as NO-CARRIER or LOWERLAYERDOWN if the other end is down."""
    # The operational state of a loopback is always "unknown".
    return "UP" if link.up and link.operstate == "unknown" else operstate_word(link).upper()


def painted_state(link: Link) -> str:
    """Return the state of a link, coloured by its meaning."""
    text = link_state(link)
    return paint(text, _ROLES.get(text, "warning"))


def address_text(address: Address, name: str) -> str:
    """Return an address of the link called `name`, with its attributes, and its state unless it is usable for ever."""
    from vethlib.endfields.newaddress import attributes_text

    state, role = _address_state(address)
    attributes = attributes_text(address, name)
    text = paint(address, "address") + (f" {attributes}" if attributes else "")
    return f"{text}  {paint(state, role)}" if state else text


def _address_state(address: Address) -> tuple[str, str]:
    match address.state:
        case "tentative":
            return "tentative", "faint"
        case "dadfailed":
            return "dadfailed: another host on the link has it", "bad"
        case "deprecated":
            return "deprecated", "warning"
        case "expiring":
            return "expiring", "warning"
    return "", ""


def change(field: str, old: object, new: object, role: str = "heading") -> str:
    """Return ``mtu 1400 → 1500`` or ``down → up``, with the new value painted."""
    return change_text(field, old, new, lambda text: paint(text, role))
