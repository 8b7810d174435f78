"""A few settings in minutes, or a whole piece: what `make bench SECTION=detection` runs."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Final

from benchmarks.detection import flags
from benchmarks.detection.cells import COST_KIND, COST_MODELS, FULL, KINDS, QUICK, TOY, TOYS, Cell, cells_of
from benchmarks.detection.photos import PHOTOS, NoPhotos
from benchmarks.detection.runner import runner
from benchmarks.sections import Json, Say, Size

_MOST_MINUTES: Final = 38
"""Of one run of a piece: what is left is for the next."""


def run(size: Size, say: Say) -> Json:
    """A few settings of one seed, in minutes."""
    given, scale = (QUICK, FULL) if size == "full" else (TOYS, TOY)
    cells = [cell for cell in given if cell.kind != "photos" or _photos(say)]
    done: list[Json] = []
    with runner(scale) as running:
        for measured in running.measure(cells):
            done.append(measured)
            say(_line(measured))
    return {"cells": _ordered(done, cells)}


def run_piece(piece: str, before: Json | None, keep: Callable[[Json], None], say: Say) -> None:
    """Go on with the settings of one kind of data, with the costs, or with the flags."""
    begin = perf_counter()
    if piece == "costs":
        _run_costs(before, keep, say, begin)
        return
    if piece == "flags":
        _run_flags(before, keep, say, begin)
        return
    if piece == "photos" and not _photos(say):
        return
    cells = cells_of(piece)
    done: list[Json] = before["cells"] if before else []
    names = {Cell.of(measured).name for measured in done}
    left = [cell for cell in cells if cell.name not in names]
    with runner(FULL) as running:
        for measured in running.measure(left, until=begin + 60 * (_MOST_MINUTES - 5)):
            done.append(measured)
            keep({"cells": _ordered(done, cells)})
            say(_line(measured))
    say(f"{len(done)} of {len(cells)} settings are measured" + ("" if len(done) == len(cells) else ": run it again"))


def _run_costs(before: Json | None, keep: Callable[[Json], None], say: Say, begin: float) -> None:
    done: list[Json] = before["costs"] if before else []
    for model in COST_MODELS:
        if any(one["model"] == model for one in done):
            continue
        if perf_counter() - begin > 60 * (_MOST_MINUTES - 8):
            say("the rest is for another run")
            break
        with runner(FULL, processes=1) as running:
            done.append(running.costs(COST_KIND, model))
        keep({"costs": done})
        say(f"{COST_KIND}, {model}")


def _run_flags(before: Json | None, keep: Callable[[Json], None], say: Say, begin: float) -> None:
    done: list[Json] = before["flags"] if before else []
    kinds = [kind for kind in KINDS if kind != "photos" or _photos(say)]
    cells = [cell for kind in kinds for seed in flags.SEEDS for cell in flags.settings_of(kind, seed)]
    names = {Cell.of(measured).name for measured in done}
    left = [cell for cell in cells if cell.name not in names]
    for measured in flags.measure_flags(left, until=begin + 60 * (_MOST_MINUTES - 8)):
        done.append(measured)
        keep({"flags": _ordered(done, cells)})
        say(f"{Cell.of(measured).name} ({measured['seconds']:.0f} s)")
    say(f"{len(done)} of {len(cells)} settings are measured" + ("" if len(done) == len(cells) else ": run it again"))


def _photos(say: Say) -> bool:
    try:
        PHOTOS.available()
    except NoPhotos as missing:
        say(f"without photographs: {missing}")
        return False
    return True


def _ordered(done: list[Json], cells: list[Cell]) -> list[Json]:
    places = {cell.name: place for place, cell in enumerate(cells)}
    return sorted(done, key=lambda measured: places[Cell.of(measured).name])


def _line(measured: Json) -> str:
    columns = measured["columns"]
    best = max(columns, key=lambda name: columns[name]["auroc"])
    return (
        f"{Cell.of(measured).name}: suspicion {columns['suspicion']['auroc']:.3f}, "
        f"best {best} {columns[best]['auroc']:.3f} ({measured['seconds']:.0f} s)"
    )
