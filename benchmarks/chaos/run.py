"""One run: the jobs without faults, then many of them with faults, then the verdict."""

import math
import random
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.chaos.clients import Client, Crowd, Order, Recipe, Room, recipes
from benchmarks.chaos.faults import Fault, Faults, Watch
from benchmarks.chaos.records import UNDELIVERED, UNENDED, Records
from benchmarks.chaos.verdict import Outcome, Rows, Verdict, judge, outcome
from benchmarks.chaos.world import World

_WORKERS = 2
_POLL_SECONDS = 0.1
_INDENT = 10


@dataclass(frozen=True)
class Plan:
    """How much of it, and how long at most."""

    seed: int
    jobs: int
    recipes: int
    clients: int
    unfinished: int
    """Clients wait while so many jobs are unfinished, so that orders come in for as long as faults do."""
    faults: Sequence[str]
    pause: tuple[float, float]
    """The shortest and longest time from one fault to the next, in seconds."""
    seconds: float
    """From the first order to the last end; whatever has not ended by then counts as lost."""
    allowed_seconds: float = 60.0
    """How long a fault may be felt."""


def run(plan: Plan, home: Path, say: Callable[[str], None]) -> Verdict:
    """Do all of it in the folder `home`."""
    with (
        World(home, workers=_WORKERS, say=lambda line: say(f"{'':>{_INDENT}}{line}")) as world,
        closing(Records(world.database_url)) as records,
    ):
        client_until = partial(Client, world.stack.url, world.key)
        known = recipes(plan.recipes, world.receiver.url)
        say("undisturbed: each job once")
        with closing(client_until(time.monotonic() + plan.seconds)) as client:
            world.receiver.secret = client.ask("GET", "/webhook-secret").json()["secret"]
            datasets = [client.upload(recipe, f"data of {recipe.name}") for recipe in known]
            undisturbed = _undisturbed(client, records, known, datasets, plan.seconds)
        before = Rows.counted(records)
        lost_undisturbed = records.lost_leases()
        # Half of them bring their own data, half name data that are there.
        orders = [
            Order(known[n % len(known)], f"order {n}", datasets[n % len(known)] if n // len(known) % 2 else None)
            for n in range(plan.jobs)
        ]
        say(f"{plan.jobs} jobs, {len(plan.faults)} faults, seed {plan.seed}")
        deadline = time.monotonic() + plan.seconds
        with (
            closing(Room(world.database_url, plan.unfinished)) as room,
            closing(Crowd(client_until, orders, clients=plan.clients, deadline=deadline, room=room)) as crowd,
        ):
            faults = _inflict(plan, world, records, room, deadline, say)
            _wait(lambda: crowd.done and not records.count("jobs", UNENDED), deadline)
            _wait(lambda: not records.count("deliveries", UNDELIVERED), deadline)
        with closing(client_until(time.monotonic() + plan.seconds)) as reader:
            return judge(
                reader,
                records,
                orders,
                crowd,
                undisturbed,
                before,
                lost_undisturbed,
                faults,
                world.receiver,
                world.leaks(),
                plan.allowed_seconds,
            )


def _undisturbed(
    client: Client, records: Records, known: Sequence[Recipe], datasets: Sequence[str], seconds: float
) -> dict[str, Outcome]:
    jobs = [
        client.submit(recipe, f"undisturbed {recipe.name}", dataset)
        for recipe, dataset in zip(known, datasets, strict=True)
    ]
    _wait(lambda: not records.count("jobs", UNENDED), time.monotonic() + seconds)
    outcomes = {job.recipe.name: outcome(client, job.id) for job in jobs}
    if {each.status for each in outcomes.values()} != {"succeeded"}:
        raise RuntimeError(f"a job did not succeed undisturbed: {outcomes}")
    return outcomes


def _inflict(
    plan: Plan, world: World, records: Records, room: Room, deadline: float, say: Callable[[str], None]
) -> list[Fault]:
    """One fault after the other. Orders are let in as faults go on, so that each finds work to hit."""
    draw = random.Random(plan.seed)
    faults = Faults(world, records, draw)
    inflicted: list[Fault] = []
    began = time.monotonic()
    with closing(Watch(world.database_url, lambda line: say(f"{'':>{_INDENT}}{line}"))) as watch:
        for kind in plan.faults:
            room.let_in(math.ceil(plan.jobs * (len(inflicted) + 1) / len(plan.faults)))
            time.sleep(draw.uniform(*plan.pause))
            if time.monotonic() > deadline:
                break
            fault = faults.inflict(kind)
            inflicted.append(fault)
            fault.number = len(inflicted)
            say(f"{time.monotonic() - began:6.1f} s  {fault}: {fault.hit}")
            watch.follow(fault)
        room.let_in(plan.jobs)
        faults.end()
        _wait(lambda: watch.quiet, deadline)
    return inflicted


def _wait(holds: Callable[[], bool], deadline: float) -> None:
    while not holds() and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
