"""`python -m service.keys`: make, list and revoke the API keys of `DATABASE_URL`."""

import argparse
import sys
from collections.abc import Sequence

from store import api_keys
from store.database import Database
from store.errors import DomainError
from store.settings import get_settings
from store.tables import DEFAULT_TENANT, ApiKey


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 2 with a reason on standard error."""
    options = _parser().parse_args(arguments)
    try:
        database = Database.from_settings(get_settings())
    except ValueError as error:
        return _refuse(str(error))
    try:
        with database.transaction() as session:
            if options.command == "create":
                key, secret = api_keys.create(session, options.tenant, options.name)
                lines = [secret]
                note = f"{key.id} of tenant {key.tenant}. The key is shown this once: only its hash is kept."
            elif options.command == "list":
                lines, note = [_line(key) for key in api_keys.every(session)], ""
            else:
                key, lines = api_keys.revoke(session, options.key), []
                note = f"{key.id} ({key.prefix}…) of tenant {key.tenant} is revoked"
    except DomainError as error:
        return _refuse(error.message)
    finally:
        database.close()
    # The key alone on standard output, so that it can be piped into where it belongs.
    sys.stdout.writelines(f"{line}\n" for line in lines)
    if note:
        sys.stderr.write(f"{note}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m service.keys", description="API keys of the service")
    commands = parser.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create", help="make a key; from the first on everybody has to show one")
    create.add_argument("--tenant", default=DEFAULT_TENANT, help="whose data it opens (default: what was there before)")
    create.add_argument("--name", help="for people: who or what uses it")
    commands.add_parser("list", help="show all keys, without their secrets")
    revoke = commands.add_parser("revoke", help="end a key at once")
    revoke.add_argument("key", help="its id (key_…) or the letters that `list` shows of it")
    return parser


def _line(key: ApiKey) -> str:
    state = f"revoked {key.revoked_at:%Y-%m-%d}" if key.revoked_at else "active"
    return "\t".join((key.id, f"{key.prefix}…", key.tenant, f"{key.created_at:%Y-%m-%d}", state, key.name or ""))


def _refuse(reason: str) -> int:
    sys.stderr.write(f"{reason}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
