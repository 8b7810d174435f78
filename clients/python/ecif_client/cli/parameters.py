"""What all commands share: their options, the client that they talk by, and how a share is written."""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import click

from ecif_client._sync.client import Client
from ecif_client.address import DEFAULT_URL
from ecif_client.cli.showing import FORMATS, Shown
from ecif_client.errors import UsageError

EPILOG = """\b
Exit codes:
  0  well, or the gate is passed
  1  the gate is failed
  2  what was asked for cannot be
  3  the job or the dataset failed, or was cancelled
  4  the service cannot be reached, or the time to wait has passed
\b
Environment:
  ECIF_URL      the service, where --url does not name it
  ECIF_API_KEY  an API key, if the service wants one
  NO_COLOR      no colours
  HTTPS_PROXY, SSL_CERT_FILE and the like are those of httpx
\b
API keys are made where the service runs: python -m service.keys create"""


_ORDER = [
    *("submit", "list", "status", "watch", "cancel", "delete", "results", "export", "report", "gate", "diff"),
    *("models", "datasets", "completion"),
]
_COMMON = ("url", "json", "output_format")


class InOrder(click.Group):
    """Commands in the order in which they are needed, not in that of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.commands, key=_ORDER.index)


@click.group(
    name="ecif",
    cls=InOrder,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="ecif-client", prog_name="ecif")
def ecif() -> None:
    """Which image-text pairs are hurting my CLIP model?"""


def command(name: str, *, formats: bool = True) -> Callable[[Callable[..., int | None]], click.Command]:
    """Make a command of a function of a client, what shows things, and the command's own options. It returns the exit
    code, or nothing for 0. Without `formats`, `--output` is free for the command's own."""

    def decorate(function: Callable[..., int | None]) -> click.Command:
        @functools.wraps(function)
        def run(url: str, json: bool, output_format: str | None = None, **options: Any) -> int:
            if json and output_format not in (None, "json"):
                raise UsageError(f"--json and --output {output_format} are two formats: name one")
            shown = Shown("json" if json else output_format)
            try:
                key = os.environ.get("ECIF_API_KEY") or None
                with Client(url, key, on_retry=shown.trying_again) as client:
                    return function(client, shown, **options) or 0
            except BrokenPipeError:  # `ecif results … | head`
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 0
            except KeyboardInterrupt:
                shown.say(f"ecif: {shown.when_stopped}")
                return 130

        common = [
            click.option("--url", envvar="ECIF_URL", default=DEFAULT_URL, show_envvar=True, help="The service."),
            click.option("--json", is_flag=True, help="For programs; of listings one object a line."),
        ]
        if formats:
            choice = click.Choice(FORMATS)
            text = "How to show it; listings that go into a file or a pipe are JSON otherwise."
            common.append(click.option("--output", "output_format", type=choice, help=text))
        decorated: Callable[..., int] = run
        for option in reversed(common):
            decorated = option(decorated)
        made = ecif.command(name)(decorated)
        made.params.sort(key=lambda param: param.name in _COMMON)  # a command's own options come first
        return made

    return decorate


def _pairs(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{text!r} is no pair such as run=17")
        if pairs.setdefault(key, value) != value:
            raise click.BadParameter(f"{key} is given two values")
    return pairs


def metadata_option(text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--metadata KEY=VALUE`, any number of times, as a dictionary."""
    return click.option("--metadata", multiple=True, metavar="KEY=VALUE", callback=_pairs, help=text)


def created_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """When what is listed was made."""
    for name, text in (("before", "earlier"), ("after", "later")):
        option = click.option(
            f"--created-{name}", metavar="TIME", help=f"Only what was made {text}: 2026-11-24T12:00Z."
        )
        function = option(function)
    return function


class Share(click.ParamType[tuple[float, bool]]):
    """A share such as `5%`, or a number of pairs, as (number, whether it is a share of 1)."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, bool]:
        text = str(value)
        share = text.endswith("%")
        number = number_of(text.removesuffix("%"))
        if number is None or not 0 <= number <= (100 if share else sys.maxsize) or (not share and number % 1):
            self.fail(f"{text!r} is neither a share such as 5% nor a number of pairs", param, ctx)
        return (number / 100 if share else number, share)


PAGE_ROWS = 1000
"""What one answer of a listing holds at most."""


def page_of(limit: int) -> int | None:
    """How many rows to ask for at a time, where `limit` are shown and 0 are all; nothing: as many as come."""
    return min(limit, PAGE_ROWS) or None


def number_of(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
