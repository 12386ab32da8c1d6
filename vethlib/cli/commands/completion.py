"""completion: print the script that makes a shell complete vethctl command lines.

The script runs `vethctl complete` at each TAB.
"""

from __future__ import annotations

from argparse import Namespace
from importlib.resources import files

from vethlib.cli.term.exits import DONE
from vethlib.cli.term.output import Output

__all__ = ["FILES", "completion"]

FILES = {"bash": "vethctl.bash", "zsh": "_vethctl", "fish": "vethctl.fish"}
"""The scripts in cli/completion/shells, which have the file names that the shells look for."""


def completion(args: Namespace, output: Output) -> int:
    """Print the script for a shell."""
    script = (files("vethlib.cli.completion") / "shells" / FILES[args.shell]).read_text(encoding="utf-8")
    if "json" in args.given:  # a shell that loads the script may have VETHLIB_JSON
        output.json({"shell": args.shell, "script": script})
    else:
        output.raw(script)
    return DONE
