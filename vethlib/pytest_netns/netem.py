"""Skip tests that need netem where the kernel has none."""

from __future__ import annotations

import sys

import pytest

__all__ = ["skip_without_netem"]


def skip_without_netem(error: Exception) -> None:
    """Skip the running test if this is the error of a wire that cannot be impaired here."""
    # The module is not imported here: if it is not loaded yet, this cannot be its error.
    module = sys.modules.get("vethlib.topology.impair.netem")
    if module is not None and isinstance(error, module.ImpairmentNotSupported):
        message = f"{error}; --netns-impair=userspace does without"
        raise pytest.skip.Exception(message, _use_item_location=True) from None
