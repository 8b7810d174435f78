"""The detection table: what a column is worth, seeds to settings, going on where a run was cut off, the page."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.detection import columns, figures, page, plot, section
from benchmarks.detection.cells import KEPT_APART_KIND, KEPT_APART_SEED, QUICK, TOYS, Cell, Scale, cells_of
from benchmarks.detection.cells import KINDS as MEASURED
from benchmarks.detection.data import NOISES
from benchmarks.detection.judging import auroc, judge, outcome_of_flags
from benchmarks.detection.measure import scores_of
from benchmarks.one_process import Job, Worked
from benchmarks.sections import Json, Measured


def drawn(n: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores with many ties, and which pairs are wrong."""
    g = torch.Generator().manual_seed(0)
    wrong = torch.rand(n, generator=g) < 0.2
    return (torch.randn(n, generator=g) + wrong).round(decimals=1).double(), wrong


def test_auroc_is_that_of_scikit_learn_also_with_ties_and_weights() -> None:
    scores, wrong = drawn()
    weights = torch.randint(0, 4, (3, len(scores)), generator=torch.Generator().manual_seed(1))
    got = auroc(scores, wrong, weights)
    for value, weight in zip(got.tolist(), weights, strict=True):
        assert value == pytest.approx(roc_auc_score(wrong, scores, sample_weight=weight), abs=1e-12)


def test_what_a_column_is_worth() -> None:
    scores, wrong = drawn(2400)
    reserved = ~wrong & (torch.arange(len(wrong)) % 3 == 0)
    given = {"ours": scores, "perfect": wrong.double(), "noise": torch.rand(len(wrong), dtype=torch.float64)}
    worth = judge(given, wrong, reserved, against="ours", seed=0)
    judged = ~reserved
    assert worth["ours"]["auroc"] == pytest.approx(roc_auc_score(wrong[judged], scores[judged]))
    assert worth["ours"]["average_precision"] == pytest.approx(
        average_precision_score(wrong[judged], scores[judged]), abs=0.03
    )
    assert (worth["ours"]["lead"], worth["ours"]["lead_error"]) == (0, 0)
    perfect = worth["perfect"]
    assert perfect["auroc"] == perfect["average_precision"] == perfect["precision_10"] == 1
    assert perfect["recall_10"] == pytest.approx(0.1 * int(judged.sum()) / int(wrong.sum()), abs=0.02)
    assert (perfect["power"], perfect["false_discovery"]) == (1, 0)
    assert perfect["lead"] > 3 * perfect["lead_error"] > 0
    assert worth["noise"]["lead"] < 0
    assert (worth["noise"]["flagged"], worth["noise"]["false_discovery"]) == (0, None)


def test_flags_are_counted_against_what_is_wrong() -> None:
    flagged, wrong = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, True])
    assert outcome_of_flags(flagged, wrong) == {"flagged": 2, "false_discovery": 0.5, "power": 1 / 3}


def test_a_column_that_nobody_knows_is_not_passed_over() -> None:
    row = {"key": "0.png", "rank": 1, "suspicion": 0.5, "clip_score": 0.1, "flagged": False}
    job = Job("job", {}, [row, {**row, "key": "1.png", "clip_score": 0.3}], Worked(0.0))
    assert scores_of(job)["clip_score"].tolist() == [-0.1, -0.3]
    with pytest.raises(ValueError, match="a_new_one"):
        scores_of(Job("job", {}, [{**row, "a_new_one": 1.5}], Worked(0.0)))


def test_settings_ask_for_noises_that_there_are_and_a_quick_run_looks_at_nothing_that_is_kept_apart() -> None:
    every = [*QUICK, *TOYS, *(cell for kind in MEASURED for cell in cells_of(kind))]
    assert all(cell.noise in NOISES[cell.kind] for cell in every)
    assert len({cell.name for cell in cells_of("photos")}) == len(cells_of("photos"))
    assert not [cell for cell in QUICK if cell.kind == KEPT_APART_KIND or cell.seed == KEPT_APART_SEED]


def worth(auroc: float, lead: float, error: float = 0.002) -> Json:
    return {
        "auroc": auroc,
        "average_precision": 0.5,
        "precision_10": 1.0,
        "precision_100": 0.6,
        "recall_10": 0.3,
        "recall_20": 0.5,
        "flagged": 0,
        "false_discovery": None,
        "power": 0.0,
        "lead": lead,
        "lead_error": error,
    }


def measured(cell: Cell, better: float = 0.01) -> Json:
    """Figures in which the CLIP score of ours is better than suspicion by so much, and LEMoN worse."""
    flags = {"flagged": 10, "false_discovery": 0.2, "power": 0.1}
    return {
        **cell.as_json(),
        "pairs": 100,
        "wrong": 0.2,
        "columns": {
            "suspicion": worth(0.8, 0.0, 0.0),
            "clip_score": worth(0.8 + better, better),
            "LEMoN": worth(0.7, -0.1),
        },
        "flags": {"suspicion": flags, columns.NO_CLEAN: flags},
        "seconds": 1.0,
    }


def test_a_lead_is_sure_where_its_interval_and_its_size_say_so() -> None:
    cells = [Cell("digits", "shuffled", 0.2, "embeddings", seed) for seed in (0, 1, 2)]
    (setting,) = figures.settings([measured(cell, 0.01 + cell.seed / 1000) for cell in cells])
    best = setting.best(figures.single_columns(setting))
    assert best is not None
    assert best.column == "clip_score"
    assert best.value == pytest.approx(0.011)
    assert best.error == pytest.approx(0.002 / 3**0.5)
    assert best.sure
    assert setting.lead("LEMoN").surely_behind
    assert figures.peers(setting) == ["LEMoN"]
    assert not figures.Lead("clip_score", 0.01, 0.006).sure
    assert not figures.Lead("clip_score", 0.002, 0.0001).sure


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[list[Cell]]:
    """What each run was asked to measure; it does three and is cut off."""
    asked: list[list[Cell]] = []

    class Running:
        def measure(self, cells: Sequence[Cell], until: float) -> Iterator[Json]:
            asked.append(list(cells))
            yield from (measured(cell) for cell in cells[:3][::-1])

    @contextmanager
    def runner(scale: Scale, processes: int | None = None) -> Iterator[Running]:
        yield Running()

    monkeypatch.setattr(section, "runner", runner)
    return asked


def test_a_piece_goes_on_where_it_was_cut_off(runs: list[list[Cell]]) -> None:
    stored: list[Json] = []
    lines: list[str] = []
    before: Any = None
    for _ in range(2):
        section.run_piece("digits", before, stored.append, lines.append)
        before = stored[-1]
    every = cells_of("digits")
    assert runs == [every, every[3:]]
    assert len(stored) == 6  # after each of them, so that nothing is lost
    assert [Cell.of(one) for one in before["cells"]] == every[:6]
    assert lines[-1] == f"6 of {len(every)} settings are measured: run it again"


def test_the_page_names_what_is_ahead() -> None:
    cells = [Cell("digits", "shuffled", 0.2, model, seed) for model in ("embeddings", "scratch") for seed in (0, 1)]
    piece = Measured({"cells": [measured(cell) for cell in cells]}, MACHINE, 3.0)
    cost = {"seconds": 1.0, "memory_mib": 20.0, "ratio": 1.5}
    costs = {"costs": [{"model": "scratch", "columns": {"suspicion": cost}, "peers": {"LEMoN": cost}}]}
    text = page.whole({"digits": piece, "costs": Measured(costs, MACHINE, 1.0)})
    assert "ahead of `suspicion` in 2 of 2 settings" in text
    assert "**clip_score 0.810 (+0.010 [+0.007, +0.013])**" in text
    assert "| 0.20, 0.10 |" in text
    assert "| 1.5 | 20 |" in text
    figure = plot.leads({"digits": piece})
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "digits shuffled 20% embeddings",
        "digits shuffled 20% scratch",
    ]


MACHINE: Json = {
    "date": "2026-01-01",
    "cores": 2,
    "processor": "x86_64",
    "threads": 1,
    "device": "cpu",
    "python": "3.11",
    "torch": "2",
    "load": 0.1,
}
