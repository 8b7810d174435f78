"""Baselines as the same machine with other parts (`docs/design.md`, section 6; results in `docs/methods.md`)."""

from ecif.methods.embedding_scores import Neighbours, lemon, loss_against_all
from ecif.methods.positive_role import ekfac_influence, tracin, trak_direction, trak_kernel

__all__ = [
    "Neighbours",
    "ekfac_influence",
    "lemon",
    "loss_against_all",
    "tracin",
    "trak_direction",
    "trak_kernel",
]
