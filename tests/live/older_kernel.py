"""What the kernel does not do before a certain version."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from vethlib._nl import link
from vethlib.session.write import building


def without_echo(monkeypatch: pytest.MonkeyPatch, user: ModuleType = building) -> None:
    """As before Linux 6.2, for the module that creates pairs."""
    create_veth = link.create_veth

    def silent(*args: Any) -> bytes:
        message = bytearray(create_veth(*args))
        message[6] &= ~0x8
        return bytes(message)

    monkeypatch.setattr(user, "create_veth", silent)
