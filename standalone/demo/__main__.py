"""`make demo`: start everything, use it as anybody would, show what came out, leave nothing running."""

import shutil
import signal
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import httpx
from rich.console import Console

from standalone.demo import digits, display
from standalone.demo.digits import Plan
from standalone.demo.measure import findings
from standalone.demo.visitor import RefusedError, Visitor
from standalone.errors import StandaloneError
from standalone.services import worker_processes
from standalone.stack import Stack
from store.settings import get_settings

Json = dict[str, Any]

_WIDTH = 110
"""Columns where there is no terminal that has a width of its own."""


def run(plan: Plan, console: Console, output: Path) -> None:
    """The demo. What stays of it is in the folder `output`.

    Raises:
        StandaloneError, RefusedError, httpx.HTTPError: it did not work.
    """
    console.print("Starting PostgreSQL, Redis, the API and a worker ...", highlight=False)
    with tempfile.TemporaryDirectory(prefix="ecif-demo-") as folder:
        try:
            # Its own servers, whatever DATABASE_URL says: a demo has no business in somebody's database.
            with Stack(Path(folder), workers=worker_processes()) as stack, closing(Visitor(stack.url)) as visitor:
                console.print(f"Up at {stack.url}", highlight=False)
                visit(plan, console, visitor, output)
        except (StandaloneError, RefusedError, httpx.HTTPError):
            shutil.copytree(Path(folder) / "logs", output / "logs", dirs_exist_ok=True)
            console.print(f"The logs are in {output / 'logs'}", highlight=False, soft_wrap=True)
            raise


def visit(plan: Plan, console: Console, visitor: Visitor, output: Path) -> None:
    """Upload, submit, follow, read and judge."""
    data = digits.load(plan)
    pairs = {pair.key: pair for pair in data.training}
    planted = {pair.key for pair in data.training if pair.planted}
    console.print(
        f"Uploading {len(data.training)} digits, {len(planted)} of them with a wrong caption, "
        f"and {len(data.validation)} clean ones to judge by",
        highlight=False,
        soft_wrap=True,
    )
    training = visitor.upload("digits", digits.archive(data.training, plan))
    validation = visitor.upload("digits-clean", digits.archive(data.validation, plan))
    job = visitor.submit(plan.specification(training, validation))
    console.print(f"Job {job}", highlight=False)
    summary: Json = display.show_progress(visitor.follow(job, plan.patience_seconds), console)["summary"]
    rows = list(visitor.results(job))
    display.show_outcome(console, rows[: plan.shown], pairs, findings(rows, planted, plan.depths), summary)

    output.mkdir(parents=True, exist_ok=True)
    page = output / "report.html"
    page.write_bytes(visitor.report(job))
    console.print(f"\nThe same with pictures, as a page for people: {page}", highlight=False, soft_wrap=True)
    console.print(
        "To try your own data: `make serve`, then http://127.0.0.1:8000/ in a browser; /docs there lists every call.",
        highlight=False,
        soft_wrap=True,
    )


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # one signal is enough: the rest is clearing up
    sys.exit(128 + number)


def main() -> int:
    """Run it; the exit status."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    try:
        run(Plan(), console, get_settings().ecif_home / "demo")
    except (StandaloneError, RefusedError, httpx.HTTPError, ValueError, OSError) as error:
        sys.stderr.write(f"The demo did not work: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
