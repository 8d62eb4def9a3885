"""The command `evonorm`, and python -m evonorm."""

from __future__ import annotations

import importlib.util
import sys


def main() -> int:
    """Runs the command line; says what is missing where the lab is not installed."""
    if importlib.util.find_spec("jsonargparse") is None:
        sys.exit("evonorm: the command line needs the lab: pip install 'evonorm[lab]'")
    from evonorm import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
