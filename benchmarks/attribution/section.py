"""One seed of digits in minutes, or a whole piece: what `make bench SECTION=attribution` runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Final

import torch

from benchmarks.attribution.environment import NoPeers, Peers
from benchmarks.attribution.measure import measure
from benchmarks.attribution.settings import QUICK, TOYS, Setting, settings_of
from benchmarks.sections import Json, Say, Size

_MOST_MINUTES: Final = 30
"""Of one run of a piece: what is left is for the next."""


def run(size: Size, say: Say) -> Json:
    """Digits, one seed. The smallest size asks no package of others: that takes an index."""
    done: list[Json] = []
    _measure(QUICK if size == "full" else TOYS, _peers(say) if size == "full" else None, done, lambda _: None, say)
    return {"settings": done}


def run_piece(piece: str, before: Json | None, keep: Callable[[Json], None], say: Say) -> None:
    """Go on with the settings of one kind of data."""
    done: list[Json] = before["settings"] if before else []
    names = {(one["fitted"], one["seed"]) for one in done}
    wanted = settings_of(piece)
    left = [setting for setting in wanted if (setting.fitted, setting.seed) not in names]
    _measure(left, _peers(say), done, keep, say)
    say(f"{len(done)} of {len(wanted)} settings are measured" + ("" if len(done) == len(wanted) else ": run it again"))


def _measure(
    settings: Sequence[Setting], peers: Peers | None, done: list[Json], keep: Callable[[Json], None], say: Say
) -> None:
    begin = perf_counter()
    torch.set_num_threads(1)  # times are of one thread, theirs and ours
    for setting in settings:
        if perf_counter() - begin > 60 * _MOST_MINUTES:
            return
        measured = measure(setting, peers)
        done.append(measured)
        keep({"settings": done})
        told = {row["method"]: row["retrained"]["lds"] for row in measured["rows"] if row["retrained"]}
        best = ", ".join(f"{name} {value:.3f}" for name, value in sorted(told.items(), key=lambda one: -one[1])[:4])
        say(f"{setting.name}: {best} ({measured['seconds']:.0f} s)")


def _peers(say: Say) -> Peers | None:
    try:
        return Peers()
    except NoPeers as missing:
        say(f"without the packages of others: {missing}")
        return None
