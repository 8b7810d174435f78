"""Bringing the parameters to a stationary point, resumably: mini-batch Adam, then full-batch L-BFGS."""

from ecif.fit.fitting import OnEpoch, fit
from ecif.fit.settings import FitResult, FitSettings

__all__ = ["FitResult", "FitSettings", "OnEpoch", "fit"]
