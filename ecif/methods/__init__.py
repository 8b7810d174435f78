"""Baselines as the same machine with other parts (`docs/design.md`, section 6; results in `docs/methods.md`)."""

from ecif.methods.embedding_scores import lemon, loss_against_all
from ecif.methods.positive_role import TrakFeatures, ekfac_influence, tracin, trak_features, trak_kernel, trak_scores

__all__ = [
    "TrakFeatures",
    "ekfac_influence",
    "lemon",
    "loss_against_all",
    "tracin",
    "trak_features",
    "trak_kernel",
    "trak_scores",
]
