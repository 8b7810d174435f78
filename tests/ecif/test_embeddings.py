"""The package alone: embeddings in, ranking out."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ecif import rank_embeddings

EXAMPLE = Path(__file__).parents[2] / "examples" / "rank_embeddings.py"


@pytest.fixture
def pairs() -> tuple[Tensor, Tensor]:
    """(images, texts), (200, 6) each: 120 pairs of which the last 20 have each other's captions, then 80 right ones."""
    g = torch.Generator().manual_seed(0)
    latent = torch.randn(200, 6, generator=g)
    images, texts = (latent + 0.2 * torch.randn(latent.shape, generator=g) for _ in range(2))
    texts[100:120] = texts[100:120].roll(1, 0)
    return images, texts


SETTINGS: dict[str, Any] = {"temperature": 0.1, "batch_size": 40, "partitions": 2, "epochs": 20}


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert float(lines[0].split()[-1]) > 0.95
    assert len(lines[-10:]) == sum(line.endswith(("True", "False")) for line in lines)
    assert sum(line.endswith("True") for line in lines) >= 9


def test_a_clean_set_gives_p_values_and_influence(pairs: tuple[Tensor, Tensor]) -> None:
    images, texts = pairs
    clean = (images[120:], texts[120:])
    ranking = rank_embeddings(images[:120], texts[:120], clean=clean, false_discovery_rate=0.2, **SETTINGS)
    assert set(ranking.scores) == {
        "pair_loss",
        "clip_score",
        "self_influence",
        "influence",
        "positive_influence",
        "negative_influence",
    }
    assert all(values.shape == (120,) for values in ranking.scores.values())
    assert bool((ranking.scores["self_influence"] > 0).all())
    assert ranking.fit.epochs_done <= 20
    flags = ranking.flags
    assert (flags.method, flags.calibration_pairs) == ("conformal", 80)
    assert torch.equal(flags.flagged, flags.q_value <= 0.2)
    assert int((ranking.order[:20] >= 100).sum()) >= 17
    torch.testing.assert_close(ranking.suspicion[ranking.order], ranking.suspicion.sort(descending=True).values)


def test_without_one_flags_are_an_estimate_and_there_is_no_influence(pairs: tuple[Tensor, Tensor]) -> None:
    images, texts = (side[:120] for side in pairs)
    ranking = rank_embeddings(images, texts, **SETTINGS)
    assert set(ranking.scores) == {"pair_loss", "clip_score", "self_influence"}
    assert ranking.flags.method == "estimate"
    assert ranking.flags.p_value is None


def test_wide_heads_are_scored_by_their_kronecker_factors(
    pairs: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, texts = (side[:120] for side in pairs)
    exact = rank_embeddings(images, texts, **SETTINGS).scores["self_influence"]
    monkeypatch.setattr("ecif.curvature.choice.LARGEST", 0)
    estimate = rank_embeddings(images, texts, **SETTINGS).scores["self_influence"]
    ranks = torch.stack([exact.argsort().argsort(), estimate.argsort().argsort()]).double()
    assert float(torch.corrcoef(ranks)[0, 1]) > 0.9
    assert 1 < float((estimate / exact).median()) < 2  # the block between the heads is left out


def test_what_does_not_fit_is_refused(pairs: tuple[Tensor, Tensor]) -> None:
    images, texts = pairs
    for wrong in ((images, texts[:10]), (images[0], texts[0])):
        with pytest.raises(ValueError, match="alike"):
            rank_embeddings(*wrong)
    with pytest.raises(ValueError, match="alike"):
        rank_embeddings(images, texts, clean=(images, texts[:9]))
