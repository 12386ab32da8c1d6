"""``python -m benchmarks.fleet``: measure agents on one etcd."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from benchmarks.interruption import Interrupted, raise_on_signals
from benchmarks.machine import Machine
from vethlib import VethError, ns

from .many import many
from .start import start


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print the results as JSON; return 2 if nothing could be run, 130 or 143 if interrupted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("what", choices=("many", "start"), help="many agents, or the start of one with much to do")
    parser.add_argument("--agents", type=int, default=50, metavar="N", help="of many (default: %(default)s)")
    parser.add_argument("--interfaces", type=int, metavar="N", help="of each agent (default: 20; of start: 10000)")
    parser.add_argument("--quiet", type=float, default=20.0, metavar="S", help="of many: length of the quiet period")
    args = parser.parse_args(argv)
    raise_on_signals()
    try:
        ns.isolate()
        if args.what == "many":
            figures = many(args.agents, args.interfaces or 20, args.quiet, _say)
        else:
            figures = start(args.interfaces or 10_000, _say)
    except VethError as error:
        print(f"benchmarks.fleet: {error}", file=sys.stderr)
        return 2
    except Interrupted as signalled:
        print("interrupted", file=sys.stderr)
        return 128 + signalled.number
    print(json.dumps({"machine": str(Machine.here())} | figures, indent=1))
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
