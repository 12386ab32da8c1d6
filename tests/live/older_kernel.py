"""What the kernel does not do before a certain version."""

from __future__ import annotations

from typing import Any

import pytest

from vethlib._nl import link
from vethlib.session.write import building


def without_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    """As before Linux 6.2."""
    create_veth = link.create_veth

    def silent(*args: Any) -> bytes:
        message = bytearray(create_veth(*args))
        message[6] &= ~0x8
        return bytes(message)

    monkeypatch.setattr(building, "create_veth", silent)
