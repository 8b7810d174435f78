"""The part of detection.md on flags: in how many runs they held, with clean sets and without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean

from benchmarks.detection.cells import Cell
from benchmarks.detection.flags import RATES
from benchmarks.detection.judging import CONFIDENCE
from benchmarks.sections import Json
from benchmarks.tables import table


def flags_in_runs(measured: Sequence[Json]) -> str:
    """Figures of `flags.measure_flags`, both halves."""
    by_setting: dict[str, list[Json]] = {}
    for figures in measured:
        by_setting.setdefault(Cell.of(figures).setting.removesuffix(" embeddings"), []).append(figures)
    rates = [f"{what} at {rate:.0%}" for rate in RATES for what in _WHAT]
    without = [_without(setting, seeds) for setting, seeds in by_setting.items()]
    allowed = f"{1 - CONFIDENCE:.0%}"
    return f"""**With a clean set.** Many draws of which right pairs are the clean ones, shared out among seeds of data
and model; what a job would flag with each. In {allowed} of the draws the share of right pairs among the flagged may
be above what was asked. {_verdict(by_setting)} Beyond: in how many draws it was; silent: in how many nothing is
flagged; found: the mean share of the wrong pairs that is, silent draws counted. A silent draw holds. So where
nearly all are silent the few that flag may all be beyond: the confidence is of the draws, not of those that
flag. Digits and emoji are too few for all sizes beside as many pairs.

{table(("setting", "clean", "scored", "of those wrong", *rates), list(_with_clean(by_setting)))}

**Without one**, the share of right pairs among the flagged and the share of the wrong pairs that is, for each seed;
nothing promises it, and the aim is twice the asked rate at most, or silence. {_verdict_without(measured)}

{table(("setting", *(f"asked {rate:.0%}" for rate in RATES)), without)}"""


_WHAT = ("beyond", "silent", "found")


def _with_clean(by_setting: dict[str, list[Json]]) -> Iterator[tuple[str, ...]]:
    for setting, seeds in by_setting.items():
        for rows in _sizes(seeds):
            draws = sum(row["draws"] for row in rows)
            cells = []
            for rate in map(str, RATES):
                beyond, silent = (sum(row["rates"][rate][what] for row in rows) for what in _WHAT[:2])
                found = sum(row["rates"][rate]["found"] * row["draws"] for row in rows) / draws
                cells += [f"{beyond} of {draws}", f"{silent}", f"{found:.0%}"]
            counts = (f"{mean(row[what] for row in rows):,.0f}" for what in ("clean", "scored", "wrong"))
            yield setting, *counts, *cells


def _sizes(seeds: Sequence[Json]) -> list[list[Json]]:
    """The rows of all seeds by the size of their clean sets."""
    by_size: dict[int, list[Json]] = {}
    for seed in seeds:
        for row in seed.get("clean", ()):
            by_size.setdefault(row["clean"], []).append(row)
    return list(by_size.values())


def _verdict(by_setting: dict[str, list[Json]]) -> str:
    shares = []
    for seeds in by_setting.values():
        for rows in _sizes(seeds):
            draws = sum(row["draws"] for row in rows)
            shares += [sum(row["rates"][str(rate)]["beyond"] for row in rows) / draws for rate in RATES]
    if not shares:
        return ""
    over = sum(share > 1 - CONFIDENCE for share in shares)
    return f"The worst of {len(shares)} rows and rates: {max(shares):.1%}; above {1 - CONFIDENCE:.0%}: {over}."


def _without(setting: str, seeds: Sequence[Json]) -> tuple[str, ...]:
    return (setting, *("; ".join(_outcome(seed["without"]["rates"][str(rate)]) for seed in seeds) for rate in RATES))


def _outcome(outcome: Json) -> str:
    if outcome["false_discovery"] is None:
        return "silent"
    return f"{outcome['false_discovery']:.0%} false, {outcome['power']:.0%} found"


def _verdict_without(measured: Sequence[Json]) -> str:
    sentences = []
    for rate in RATES:
        falsely = [figures["without"]["rates"][str(rate)]["false_discovery"] for figures in measured]
        known = [value for value in falsely if value is not None]
        over = sum(value > 2 * rate for value in known)
        flagged = f"{len(known)} of {len(falsely)} runs flag anything"
        sentences.append(f"Asked {rate:.0%}: {flagged}, {over} of them with more than {2 * rate:.0%} right pairs.")
    return " ".join(sentences)
