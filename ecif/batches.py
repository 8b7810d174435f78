"""Which pairs meet in which batch: seeded, explicit, stored with the job (design section 1)."""

from __future__ import annotations

import torch
from torch import Tensor

from ecif.seeds import generator


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
    """Consecutive batches of one (n,) permutation; a remainder forms one smaller last batch.

    A remainder of one pair has zero loss, hence zero scores, in that partition.

    Raises:
        ValueError: `permutation` is not one-dimensional, or batch_size is below 2.
    """
    if permutation.ndim != 1:
        raise ValueError(f"expected one permutation (n,), got shape {tuple(permutation.shape)}")
    if batch_size < 2:
        raise ValueError(f"batch_size must be at least 2 (a lone pair has no contrast), got {batch_size}")
    return list(torch.split(permutation, batch_size))
