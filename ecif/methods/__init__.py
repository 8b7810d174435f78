"""Baselines as the same machine with other parts (design section 5; the table is in `docs/methods.md`)."""

from ecif.methods.contrast import loss_against_all
from ecif.methods.lemon import lemon
from ecif.methods.positive_only import ekfac_influence, tracin
from ecif.methods.trak import TrakFeatures, trak_features, trak_kernel, trak_scores

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
