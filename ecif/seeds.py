"""Random streams that depend on a seed and a place, so that shards draw what one process would."""

from __future__ import annotations

import torch

_STRIDE = 1_000_003  # a prime: streams of neighbouring seeds do not overlap below a million places


def generator(seed: int, place: int) -> torch.Generator:
    """A CPU generator for one place (partition, batch index) under one seed."""
    return torch.Generator().manual_seed((seed * _STRIDE + place) % 2**63)
