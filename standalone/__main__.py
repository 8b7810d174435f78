"""`python -m standalone serve`."""

import argparse
import os
import sys

from pydantic import ValidationError

from standalone.errors import StandaloneError
from standalone.serve import serve
from store.settings import get_settings

_DEFAULT_PORT = "8000"


def main() -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m standalone", description="The whole service on this machine.")
    commands = parser.add_subparsers(required=True, metavar="serve")
    serving = commands.add_parser("serve", help="run it until Ctrl-C; PORT, ECIF_HOME and others are read")
    serving.add_argument("--with-parent", action="store_true", help="end as well when the process that started it ends")
    arguments = parser.parse_args()
    try:
        serve(get_settings(), _port(), with_parent=arguments.with_parent)
    except (StandaloneError, ValidationError, ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _port() -> int:
    text = os.environ.get("PORT") or _DEFAULT_PORT
    if not text.isdecimal() or int(text) > 65_535:
        raise ValueError(f"PORT must be a number up to 65535, not {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
