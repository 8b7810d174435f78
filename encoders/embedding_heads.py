"""Heads for datasets of precomputed embeddings, where no model is at hand."""

from __future__ import annotations

import torch

from encoders.embedder import Embedder, linear_heads

DEFAULT_TEMPERATURE = 0.01


def square_heads(image_width: int, text_width: int, temperature: float = DEFAULT_TEMPERATURE) -> Embedder:
    """Two E × E heads that start at the identity, applied before normalisation.

    Raises ValueError when the widths differ: such embeddings have no cosine.
    """
    if image_width != text_width:
        raise ValueError(f"image embeddings are {image_width} wide, text embeddings {text_width}: they must agree")
    return linear_heads((torch.eye(image_width), None), (torch.eye(text_width), None), temperature)
