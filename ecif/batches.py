"""Which pairs meet in which batch (the paper's ``Seg``): seeded, explicit, stored with the job.

The contrastive loss couples the pairs of a batch, so membership changes every influence (`docs/design.md`, section 1).
"""

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

    def take(self, rows: Tensor) -> Batch:
        """Some of the pairs, by their rows or a (B,) bool."""
        return Batch(self.images[rows], self.texts[rows], self.caption_group[rows], self.image_group[rows])

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(
            self.images.to(device),
            self.texts.to(device),
            self.caption_group.to(device),
            self.image_group.to(device),
        )


_VALIDATION_SEED = 1_000_003  # so that splits and training batches are drawn independently
_STRIDE = 1_000_003  # a prime: streams of neighbouring seeds do not overlap below a million places


def generator(seed: int, place: int) -> torch.Generator:
    """A CPU generator for one place (partition, batch index) under one seed."""
    return torch.Generator().manual_seed((seed * _STRIDE + place) % 2**63)


def plan_batches(n: int, batch_size: int, partitions: int, seed: int) -> Tensor:
    """R independent orders of n pairs, each to be cut into batches by `cut_batches`.

    Partition r depends on (n, seed, r) only, so asking for more partitions keeps the first ones.

    Returns:
        (partitions, n) int64, every row a permutation of 0..n-1.

    Raises:
        ValueError: no pairs, no partition, or a batch size below 2 (a batch of one has no loss).
    """
    if n < 1:
        raise ValueError(f"batches need at least one pair, got n = {n}")
    if batch_size < 2:
        raise ValueError(f"batch_size must be at least 2 (a lone pair has no contrast), got {batch_size}")
    if partitions < 1:
        raise ValueError(f"partitions must be at least 1, got {partitions}")
    return torch.stack([torch.randperm(n, generator=generator(seed, r)) for r in range(partitions)])


def cut_batches(permutation: Tensor, batch_size: int) -> list[Tensor]:
    """Consecutive batches of one (n,) permutation: as few as `batch_size` allows, and sizes that differ by at most one,
    the larger first.

    A lone pair, of a batch size of 2 and an odd n, has zero loss, hence zero scores, in that partition.

    Raises:
        ValueError: `permutation` is not one-dimensional, or batch_size is below 2.
    """
    if permutation.ndim != 1:
        raise ValueError(f"expected one permutation (n,), got shape {tuple(permutation.shape)}")
    if batch_size < 2:
        raise ValueError(f"batch_size must be at least 2 (a lone pair has no contrast), got {batch_size}")
    return list(torch.tensor_split(permutation, max(1, -(-len(permutation) // batch_size))))


def pairs_before(batch: int, n: int, batches: int) -> int:
    """How many of n pairs stand in the batches before this one, as `cut_batches` cuts them into `batches`."""
    size, larger = divmod(n, batches)
    return batch * size + min(batch, larger)


def validation_order(count: int, seed: int) -> Tensor:
    """(count,) int64, the order in which pairs are taken for validation; independent of `plan_batches`."""
    drawn = torch.Generator().manual_seed(seed + _VALIDATION_SEED & 0x7FFF_FFFF_FFFF_FFFF)
    return torch.randperm(count, generator=drawn)
