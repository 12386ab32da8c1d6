"""The limits of a command: --limit and VETHLIB_LIMIT."""

from __future__ import annotations

import os
from argparse import Namespace

from vethlib.agent.limits import Limits, parse_limits

__all__ = ["limits_of"]

_VARIABLE = "VETHLIB_LIMIT"


def limits_of(args: Namespace) -> Limits:
    """Return the limits given by VETHLIB_LIMIT and --limit; the flag wins. Raises InvalidValue."""
    inherited = os.environ.get(_VARIABLE, "")
    parse_limits([inherited], _VARIABLE)  # so that its mistakes are reported under its own name
    return parse_limits([inherited, *args.limit])
