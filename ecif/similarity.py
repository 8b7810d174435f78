"""From embeddings to the matrix S of similarities (`docs/design.md`, section 1).

``S[i, j] = s · u_i · v_j`` with u the L2-normalised text rows and v the image rows. False negatives
(equal captions or images in one batch) leave every denominator: their entries become `EXCLUDED`.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Stands for −∞: exp(EXCLUDED − x) is exactly 0 for every similarity x in float32 and float64, while
# differences stay finite, so that no derivative meets ∞·0 or ∞ − ∞.
EXCLUDED = -1e30


def normalise(embedding: Tensor) -> Tensor:
    """Rows of (B, E) scaled to unit length, in float32 or wider.

    A row of zeros stays zero and has zero derivative of every order: its
    similarity to everything is 0, and it pulls nothing.
    """
    return unit_and_inverse(embedding)[0]


def unit_and_inverse(embedding: Tensor) -> tuple[Tensor, Tensor]:
    """`normalise`d rows (B, E), and one over what they were long (B, 1): 0 for a row of zeros."""
    wide = embedding.to(torch.promote_types(embedding.dtype, torch.float32))
    # Direction is all that counts, so a constant factor brings rows of any size to where squares neither under- nor
    # overflow.
    largest = wide.detach().abs().amax(-1, keepdim=True)
    factor = torch.where(largest > 0, largest, 1.0)
    wide = wide / factor
    zero = largest == 0
    # The inner where keeps rsqrt away from 0, the outer one cuts its derivative.
    inverse = torch.where(zero, 0.0, torch.where(zero, 1.0, wide.square().sum(-1, keepdim=True)).rsqrt())
    return wide * inverse, inverse / factor


def similarity_matrix(text: Tensor, image: Tensor, scale: Tensor | float) -> Tensor:
    """S (B, B) from un-normalised text and image embeddings (B, E): rows are texts, columns images."""
    return scale * (normalise(text) @ normalise(image).mT)


def false_negatives(caption_group: Tensor, image_group: Tensor) -> Tensor:
    """(..., B, B) bool of groups (..., B): (same caption or same image) and i ≠ j. Symmetric; the own term is never in
    it."""
    same_caption = caption_group[..., :, None] == caption_group[..., None, :]
    same_image = image_group[..., :, None] == image_group[..., None, :]
    own = torch.eye(caption_group.shape[-1], dtype=torch.bool, device=caption_group.device)
    return (same_caption | same_image) & ~own


def exclude(S: Tensor, mask: Tensor) -> Tensor:
    """S with the masked entries out of every softmax; their derivatives of every order are zero."""
    return S.masked_fill(mask, EXCLUDED)
