"""Run one command. Exit codes: 0 well, 1 gate failed, 2 usage, 3 job failed, 4 unreachable or waited too long."""

from collections.abc import Sequence

import click

from ecif_client.cli import completing, gating, jobs, outcomes, submitting, things
from ecif_client.cli.parameters import ecif
from ecif_client.cli.showing import printable
from ecif_client.errors import ClientError

USAGE = 2

_ORDER = (submitting, jobs, outcomes, gating, things, completing)  # each adds its commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code. What cannot be done is said in one line."""
    try:
        code = ecif.main(args=None if arguments is None else list(arguments), prog_name="ecif", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return USAGE
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        name = context.command_path if context is not None else "ecif"
        return _refuse(f"{name}: {error.format_message()} ({name} --help)", USAGE)
    except click.Abort:
        return _refuse("ecif: stopped", 130)
    except ClientError as error:
        return _refuse(f"ecif: {error}", error.exit_code)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _refuse(f"ecif: {place}{error.strerror or error}", USAGE)
    return code if isinstance(code, int) else 0


def _refuse(text: str, code: int) -> int:
    click.echo(printable(" ".join(text.split())), err=True)
    return code
