"""How a score is spread, also one that hardly is."""

import pytest
import torch
from torch import Tensor

from worker.analysis.summary import describe


@pytest.mark.parametrize(
    "score",
    [torch.linspace(0, 1, 20), torch.full((20,), 0.3), 0.3 + 1e-16 * torch.arange(20.0).double(), torch.zeros(1)],
    ids=["spread", "equal", "equal but for rounding", "one"],
)
def test_every_value_is_in_a_bin(score: Tensor) -> None:
    found = describe(score)
    assert sum(found["histogram"]["counts"]) == len(score)
    assert len(found["histogram"]["edges"]) == 41
    assert found["quantiles"]["0"] <= found["mean"] <= found["quantiles"]["1"] + 1e-12
