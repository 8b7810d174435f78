"""Tensors in blobs."""

import pytest
import torch

from store.blobs import Blobs
from worker.analysis.tensors import get_elements, get_tensors, put_tensors


@pytest.mark.parametrize(("first", "last"), [(0, 5), (2, 4), (4, 5), (0, 1)])
def test_some_elements_are_those_of_the_whole(blobs: Blobs, first: int, last: int) -> None:
    kept = {
        "position": torch.arange(5),
        "score": torch.linspace(0, 1, 5, dtype=torch.float64),
        "small": torch.ones(5),
        "why": torch.arange(15).reshape(5, 3),
        "flagged": torch.tensor([True, False, False, True, True]),
    }
    put_tensors(blobs, "jobs/x/ranked", kept, {"said": "of them"})
    found, whole = get_elements(blobs, "jobs/x/ranked", first, last), get_tensors(blobs, "jobs/x/ranked")
    assert found.keys() == kept.keys()
    assert all(torch.equal(found[name], whole[name][first:last]) for name in kept)
