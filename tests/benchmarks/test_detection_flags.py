"""The piece that shows whether flags hold in the run at hand: draws of clean sets, going on where it was cut off, the
page."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from benchmarks.detection import flags, section
from benchmarks.detection.cells import TOY, Cell
from benchmarks.detection.data import NOISES
from benchmarks.detection.flags import DRAWN, FULL, SEEDS, FlagScale, of_one_model, settings_of, with_clean_sets
from benchmarks.detection.flags_page import flags_in_runs
from benchmarks.sections import Json

SMALL = FlagScale(TOY.architecture, (20, 60), scored=100, draws=4, pool=60, epochs=1)


def test_each_kind_has_two_noises_with_many_draws_and_all_without_a_clean_set() -> None:
    for kind, noises in DRAWN.items():
        cells = settings_of(kind, 0)
        assert len([cell for cell in cells if cell.noise in noises and cell.rate in (0.0, 0.2)]) == 2
        assert {cell.noise for cell in cells} == {cell.noise for cell in cells} & set(NOISES[kind])
        assert {cell.model for cell in cells} == {"embeddings"}
    assert FULL.draws * len(SEEDS) == 200
    assert FULL.clean == (100, 200, 500, 1000)


def test_a_draw_takes_clean_pairs_from_the_right_ones_and_scores_all_that_are_wrong() -> None:
    wrong = torch.arange(1000) < 200
    scale = FlagScale("", (300, 500, 900), scored=600, draws=5, pool=0, epochs=0)
    g = torch.Generator().manual_seed(0)
    plain = torch.randn(1000, generator=g, dtype=torch.float64)
    rows = with_clean_sets(plain + 9 * wrong, wrong, scale, 600, seed=0)
    assert [(row["clean"], row["scored"], row["wrong"], row["draws"]) for row in rows] == [
        (300, 600, 200, 5),
        (500, 500, 200, 5),
    ]  # of 800 right pairs, 900 are no clean set
    for row in rows:
        assert row["rates"]["0.05"] == {"beyond": 0, "silent": 0, "found": pytest.approx(1.0)}
    silent = with_clean_sets(plain, wrong, scale, 600, seed=0)
    assert all(row["rates"]["0.1"] == {"beyond": 0, "silent": 5, "found": 0} for row in silent)


def test_draws_whose_flags_are_falser_than_asked_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the bounds let through all that is above the middle: half of it is right."""

    def broken(scores: torch.Tensor, *_: Any) -> Any:
        return type("Q", (), {"q_value": torch.where(scores > 0, 0.0, 1.0)})

    monkeypatch.setattr(flags, "discoveries", broken)
    wrong = torch.arange(400) < 100
    scores = torch.where(wrong, 1.0, -1.0)
    scores[100:200] = 1.0
    scale = FlagScale("", (50,), scored=350, draws=3, pool=0, epochs=0)
    (row,) = with_clean_sets(scores, wrong, scale, 350, seed=0)
    assert row["rates"]["0.1"] == {"beyond": 3, "silent": 0, "found": 1.0}


def test_one_model_measures_its_settings_with_and_without_clean_sets() -> None:
    cells = [Cell("digits", noise, 0.2, "embeddings", 0) for noise in ("shuffled", "near")]
    drawn, other = of_one_model(cells, SMALL)
    assert [row["clean"] for row in drawn["clean"]] == [20, 60]
    assert drawn["without"]["pairs"] == 100
    assert set(drawn["without"]["rates"]) == {"0.05", "0.1"}
    assert "clean" not in other
    assert Cell.of(other) == cells[1]


def figures(cell: Cell, *, beyond: int = 3, false: float | None = None) -> Json:
    rates = {rate: {"beyond": beyond, "silent": 10, "found": 0.5} for rate in ("0.05", "0.1")}
    outcome = {"flagged": 0 if false is None else 10, "false_discovery": false, "power": 0.25}
    clean = {"clean": [{"clean": 100, "scored": 1000, "wrong": 200, "draws": 100, "rates": rates}]}
    without = {"pairs": 1000, "wrong": 200, "rates": {"0.05": outcome, "0.1": outcome}}
    return {**cell.as_json(), "without": without, "seconds": 1.0, **(clean if cell.noise == "shuffled" else {})}


def test_the_piece_goes_on_where_it_was_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[Cell]] = []

    def measured(left: Sequence[Cell], **_: Any) -> Iterator[Json]:
        asked.append(list(left))
        yield from map(figures, left[:4])

    monkeypatch.setattr(flags, "measure_flags", measured)
    monkeypatch.delenv("ECIF_BENCH_PHOTOS", raising=False)
    stored: list[Json] = []
    lines: list[str] = []
    for _ in range(2):
        section.run_piece("flags", stored[-1] if stored else None, stored.append, lines.append)
    assert asked[1] == asked[0][4:]
    assert not [cell for cell in asked[0] if cell.kind == "photos"]
    assert len(stored[-1]["flags"]) == 8
    assert "run it again" in lines[-1]


def test_the_page_tells_how_often_flags_were_falser_than_asked() -> None:
    def cell(noise: str, seed: int) -> Cell:
        return Cell("scenes", noise, 0.2, "embeddings", seed)

    text = flags_in_runs(
        [
            figures(cell("shuffled", 0), beyond=3),
            figures(cell("shuffled", 1), beyond=23, false=0.15),
            figures(cell("near", 0), false=0.04),
        ]
    )
    assert "The worst of 2 rows and rates: 13.0%; above 10%: 2." in text
    assert "| scenes shuffled 20% | 100 | 1,000 | 200 | 26 of 200 | 20 | 50% | 26 of 200 | 20 | 50% |" in text
    assert "Asked 5%: 2 of 3 runs flag anything, 1 of them with more than 10% right pairs." in text
    assert "| scenes shuffled 20% | silent; 15% false, 25% found | silent; 15% false, 25% found |" in text
