"""`python -m benchmarks.chaos`: 200 jobs under random faults. Exit status 1 when a promise is broken."""

import argparse
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.chaos.faults import drawn
from benchmarks.chaos.run import Plan, run


def main() -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--faults", type=int, default=34)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="of the faults and pauses")
    parser.add_argument("--seconds", type=float, default=900.0, help="what has not ended by then counts as lost")
    parser.add_argument("--home", type=Path, help="keep logs and data in this new folder")
    arguments = parser.parse_args()
    plan = Plan(
        seed=arguments.seed,
        jobs=arguments.jobs,
        recipes=8,
        clients=4,
        unfinished=12,
        faults=drawn(arguments.faults, random.Random(arguments.seed)),
        pause=(2.0, 8.0),
        seconds=arguments.seconds,
    )
    began = time.monotonic()
    with ExitStack() as stack:
        home: Path = arguments.home or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="ecif-chaos-", ignore_cleanup_errors=True))
        )
        home.mkdir(mode=0o711, exist_ok=True)
        home.chmod(0o711)  # PostgreSQL runs as another user where root starts it, and must be able to pass
        verdict = run(plan, home, _say)
    _say(f"\n{verdict.table()}\nseconds in all                             {time.monotonic() - began:.0f}\n")
    for line in (*verdict.refused, *(f"BROKEN: {promise}" for promise in verdict.broken)):
        _say(line)
    if verdict.broken:
        return 1
    _say("every promise was kept")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
