"""`python -m monitoring`: render rules, scrape configurations and tables from their sources, and check them."""

from __future__ import annotations

import argparse
import sys

from monitoring import check, render, schema


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m monitoring", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    rendering = verbs.add_parser("render", help="write what is rendered from schema.toml, alerts.toml and scrape.py")
    rendering.add_argument("--check", action="store_true", help="write nothing; fail where a file is out of step")
    verbs.add_parser("check", help="ask promtool and amtool whether rules and configurations are right")
    arguments = parser.parse_args()
    try:
        if arguments.verb == "check":
            return 0 if check.run() else 1
        loaded = schema.load()
        if arguments.check:
            stale = render.out_of_step(loaded)
            for path in stale:
                print(f"{path} is out of step: run python -m monitoring render", file=sys.stderr)
            return 1 if stale else 0
        for path in render.write(loaded):
            print(f"wrote {path}")
    except (schema.SchemaError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
