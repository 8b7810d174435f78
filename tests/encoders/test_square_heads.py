"""Precomputed embeddings start as they came."""

from __future__ import annotations

import pytest
import torch

from encoders.embedder import square_heads


def test_the_heads_start_at_the_identity() -> None:
    heads = square_heads(6, 6)
    images, texts = torch.randn(3, 6), torch.randn(5, 6)
    text_embeddings, image_embeddings = heads(heads.parameters, images, texts)
    assert torch.equal(text_embeddings, texts)
    assert torch.equal(image_embeddings, images)
    assert heads.temperature == 0.01
    assert {name: tuple(weight.shape) for name, weight in heads.parameters.items()} == {
        "image.weight": (6, 6),
        "text.weight": (6, 6),
    }


def test_widths_that_differ_have_no_cosine() -> None:
    with pytest.raises(ValueError, match="6 wide, text embeddings 7"):
        square_heads(6, 7)
