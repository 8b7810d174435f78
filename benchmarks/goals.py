"""What was hoped for beside what was measured: the table that `make bench` prints and the page begins with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import mean

from benchmarks.sections import Json, Measured


@dataclass(frozen=True)
class Goal:
    """One row. met: None where nothing was promised."""

    what: str
    hoped: str
    measured: str
    met: bool | None


def goals(data: Mapping[str, Measured]) -> list[Goal]:
    """The rows of all sections that have been measured."""
    rows: list[Goal] = []
    parts = {
        "fidelity": _fidelity,
        "cost": _cost,
        "answer": _answer,
        "retraining": _retraining,
        "memory": _memory,
        "results": _results,
        "ingest": _ingest,
    }
    for name, of in parts.items():
        if name in data:
            rows += of(data[name].results)
    return rows


def scores_of(setting: Json, curvature: str, form: str = "set") -> list[Json]:
    """The rows of one curvature and form, one for each seed; none where it was not measured there."""
    return [
        row
        for seed in setting["seeds"]
        for row in seed["scores"]
        if (row["curvature"], row["form"]) == (curvature, form)
    ]


def _fidelity(results: Json) -> Iterator[Goal]:
    for setting in results["settings"]:
        for curvature, floor in (("gauss_newton", 0.98), ("ekfac", 0.95)):
            score = mean(row["spearman"] for row in scores_of(setting, curvature))
            what = f"LDS, `{setting['name']}`, `{curvature}`"
            promised = setting["stationary"]
            yield Goal(what, f"≥ {floor}" if promised else "–", f"{score:.3f}", score >= floor if promised else None)
        if rows := scores_of(setting, "hessian"):
            slopes = [row["slope"] for row in rows]
            low, high = min(slopes), max(slopes)
            met = low >= 0.9 and high <= 1.1
            yield Goal(f"slope, `{setting['name']}`, `hessian`", "0.9 to 1.1", f"{low:.2f} to {high:.2f}", met)


def _cost(results: Json) -> Iterator[Goal]:
    for key, model in (("all_tiny", "`tiny`"), ("all_large", "ViT-B/32")):
        value = results[key]["ratio"]
        yield Goal(f"scoring pass, every weight of {model} ÷ embedding pass", "≤ 3.5", f"{value:.2f}", value <= 3.5)
    value = results["heads"]["ratio"]
    yield Goal("whole job on heads, ViT-B/32 ÷ embedding pass", "≤ 1.15", f"{value:.2f}", value <= 1.15)
    traceback = results["traceback"]
    what = f"traceback of {traceback['queries']} queries from a store ÷ one refit"
    yield Goal(what, "≤ 0.1", f"{traceback['ratio']:.3f}", traceback["ratio"] <= 0.1)


def _answer(results: Json) -> Iterator[Goal]:
    for one in results["embeddings"]:
        what = f"whole default job on {one['pairs']:,} embeddings ÷ F"
        promised = one["pairs"] >= 100_000
        yield Goal(what, "≤ 120" if promised else "–", f"{one['ratio']:.0f}", one["ratio"] <= 120 if promised else None)
    pictures = results["pictures"]
    what = f"whole default job on {pictures['pairs']:,} pictures, `tiny` ÷ embedding pass"
    yield Goal(what, "≤ 3", f"{pictures['ratio']:.2f}", pictures["ratio"] <= 3)


def _retraining(results: Json) -> Iterator[Goal]:
    for measured in (results["heads"], results["many"]):
        pairs = f"heads, {measured['pairs']:,} pairs"
        for what, key in (
            (f"an edit without {measured['removed']} of them", "ratio_on"),
            ("L_val of 100 such sets, predicted", "ratio_predicted"),
            ("L_val of every leave-one-out, predicted", "ratio_every_single_one"),
        ):
            value = measured[key]
            yield Goal(f"{pairs}: refits ÷ {what}", "≥ 100", f"{value:,.0f}", value >= 100)


def _memory(results: Json) -> Iterator[Goal]:
    sizes = results["sizes"]
    what = f"peak memory from {sizes[0]['pairs']:,} to {sizes[-1]['pairs']:,} pairs"
    yield Goal(what, "grows < 20 %", f"{results['growth']:+.0%}", results["growth"] < 0.2)


def _results(results: Json) -> Iterator[Goal]:
    load, pages, gaps = results["load"]["ratio"], results["pages"]["ratio"], results["walk"]["gaps"]
    yield Goal(f"loading {results['rows']:,} results ÷ a bare COPY (rates)", "≥ 0.7", f"{load:.2f}", load >= 0.7)
    yield Goal(f"page at depth {results['pages']['depth']:,} ÷ first page", "≤ 1.5", f"{pages:.2f}", pages <= 1.5)
    errors = results["readers"]["errors"]
    yield Goal(f"errors of {results['readers']['readers']} readers during a load", "0", f"{errors}", errors == 0)
    yield Goal("gaps or repeats in a walk while another job loads", "0", f"{gaps}", gaps == 0)
    seconds = results["delete_s"]
    yield Goal(f"deleting a job of {results['rows']:,} results answers in", "< 1 s", f"{seconds:.3f} s", seconds < 1)


def _ingest(results: Json) -> Iterator[Goal]:
    embeddings = results["embeddings"]
    for what, value in (("", embeddings["read_ratio"]), (" from disk", embeddings["read_cold_ratio"])):
        yield Goal(f"reading {embeddings['pairs']:,} embeddings{what} ÷ ingest", "≥ 0.5", f"{value:.3f}", value >= 0.5)
