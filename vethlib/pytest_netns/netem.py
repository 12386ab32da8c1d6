"""Skip tests that need netem if the kernel has none."""

from __future__ import annotations

import sys

import pytest

__all__ = ["skip_without_netem"]


def skip_without_netem(call: pytest.CallInfo[None], impair: str) -> None:
    """Turn the error of a wire that cannot be impaired here, or a group of such errors, into a skip of the test.

    `impair` is the setting of the run.
    """
    # The module is not imported here: if it has not been loaded, the error cannot be its own.
    module = sys.modules.get("vethlib.topology.impair.netem")
    if module is None or call.excinfo is None:
        return
    error = call.excinfo.value
    while isinstance(error, BaseExceptionGroup) and error.split(module.ImpairmentNotSupported)[1] is None:
        error = error.exceptions[0]
    if isinstance(error, module.ImpairmentNotSupported):
        message = str(error) + ("; --netns-impair=userspace does not need it" if impair == "kernel" else "")
        call.excinfo = pytest.CallInfo.from_call(lambda: _skip(message), call.when).excinfo


def _skip(message: str) -> None:
    raise pytest.skip.Exception(message, _use_item_location=True)
