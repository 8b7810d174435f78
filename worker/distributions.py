"""How a score is spread, in a form that a person can plot."""

from typing import Any

import numpy as np
from torch import Tensor

_QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
_BINS = 40


def describe(score: Tensor) -> dict[str, Any]:
    """Mean, standard deviation, quantiles and a histogram of a score (n,)."""
    values = score.double().numpy()
    least, most = float(values.min()), float(values.max())
    # What differs by rounding only has no bins: it is drawn as numpy draws what does not differ at all.
    distinct = most - least > _BINS * np.spacing(max(abs(least), abs(most)))
    counts, edges = np.histogram(values, _BINS, None if distinct else (least - 0.5, most + 0.5))
    return {
        "mean": float(values.mean()),
        "standard_deviation": float(values.std()),
        "quantiles": {f"{q:g}": float(v) for q, v in zip(_QUANTILES, np.quantile(values, _QUANTILES), strict=True)},
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }
