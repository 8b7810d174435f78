"""One contrastive batch: the pairs whose losses are coupled (design section 1; the paper's ``Seg``)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B pairs, row n of every field being pair n.

    Attributes:
        images: (B, ...), whatever the embedder takes.
        texts: (B, ...), whatever the embedder takes.
        caption_group: (B,) int64; equal value = equal caption.
        image_group: (B,) int64; equal value = equal image.

    Raises:
        ValueError: no pairs, fields of different length, or groups that are not int64.
    """

    images: Tensor
    texts: Tensor
    caption_group: Tensor
    image_group: Tensor

    def __post_init__(self) -> None:
        size = self.texts.shape[0]
        if size == 0:
            raise ValueError("a batch needs at least one pair")
        if self.images.shape[0] != size:
            raise ValueError(f"{self.images.shape[0]} images but {size} texts in one batch")
        for name, group in (("caption_group", self.caption_group), ("image_group", self.image_group)):
            if group.shape != (size,) or group.dtype != torch.int64:
                raise ValueError(f"{name} must be ({size},) int64, is {tuple(group.shape)} {group.dtype}")

    @property
    def size(self) -> int:
        """The number of pairs, B."""
        return self.texts.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(
            self.images.to(device),
            self.texts.to(device),
            self.caption_group.to(device),
            self.image_group.to(device),
        )
