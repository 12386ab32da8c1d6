"""completion: what makes a shell complete. The shell asks `vethctl complete` at each TAB."""

from __future__ import annotations

import sys
from argparse import Namespace
from importlib.resources import files

from .exits import DONE
from .output import Output

__all__ = ["FILES", "completion"]

FILES = {"bash": "vethctl.bash", "zsh": "_vethctl", "fish": "vethctl.fish"}
"""In `shells`, under the names that the shells look for."""


def completion(args: Namespace, output: Output) -> int:
    """Print the script of a shell."""
    script = (files(__package__) / "shells" / FILES[args.shell]).read_text()
    if output.as_json:
        output.json({"shell": args.shell, "script": script})
    else:
        sys.stdout.write(script)
    return DONE
