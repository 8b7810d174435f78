"""The settings of a fit, and its result.

How many of the epochs Adam gets (`FitSettings.adam_epochs`): a pass is M mini-batch steps for Adam and one step for
L-BFGS, so Adam wins by having many batches, and L-BFGS by ending at stationarity where Adam only circles it.
With few batches (M < 16) Adam gets none; else 12 epochs, or M/8 if that is more, but never more than 0.9 of the budget.
Objective at the end (heads on embeddings E = 8 and 32, two towers from scratch), for Adam's share of the budget:

======================  =======  ========  ========  ========  ========  ==================
problem                 budget   0         0.2       0.6       0.9       rule (Adam epochs)
======================  =======  ========  ========  ========  ========  ==================
heads, M = 8            5        924       986       1032      1020      924 (0)
heads, M = 8            60       24 ep.    34 ep.    57 ep.    –         24 ep. (0)
heads, M = 16           5        15059     12931     11123     10513     10513 (4)
heads, M = 16           60       8213      8205      8207      –         8205 (12)
heads, M = 64, s = 50   5        25403     12280     8072      7294      7294 (4)
heads, M = 64, s = 50   200      3816      3695      3749      –         ≈ 3709 (12)
from scratch, M = 8     12       656       662       698       751       656 (0)
from scratch, M = 32    5        572       336       309       261       261 (4)
======================  =======  ========  ========  ========  ========  ==================

("24 ep.": stationary after that many epochs.) Adam also ends early once the sum of an epoch's own gradients, which
costs nothing, says that it is at stationarity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ecif.parameters import Params

_FEW_BATCHES = 16  # below which an epoch of mini-batch steps is worth less than one full-batch step
_ADAM_EPOCHS = 12
_BATCHES_AN_EPOCH = 8  # so many batches give Adam one epoch more, beyond those


@dataclass(frozen=True)
class FitSettings:
    """How to fit.

    Attributes:
        epochs: passes over the data (all partitions), Adam's and L-BFGS's together; the opening evaluation
            of the starting point comes on top.
        learning_rate: Adam's peak, or "auto" for `automatic_learning_rate`.
        adam_share: of the epochs, or "auto" for the rule above; the rest, at least one, is L-BFGS.
        tolerance: stop at ½‖g‖²/(N·δ) ≤ tolerance in units of the summed loss; with δ = 0 at a gradient
            norm of tolerance times that of the starting point.
        adam_precision: of the model in Adam's epochs; what judges them, and L-BFGS, is as wide as the parameters.
        keep_checkpoints: how many copies of the parameters, evenly spaced over Adam's epochs.
        state_every: Adam steps between two states handed out.

    Raises:
        ValueError: a setting out of its range.
    """

    epochs: int
    learning_rate: float | Literal["auto"] = "auto"
    adam_share: float | Literal["auto"] = "auto"
    tolerance: float = 1e-3
    adam_precision: Literal["float32", "bfloat16"] = "float32"
    keep_checkpoints: int = 4
    state_every: int = 16

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.keep_checkpoints < 0 or self.state_every < 1:
            raise ValueError("epochs and keep_checkpoints must not be negative, state_every be at least 1")
        if (self.adam_share != "auto" and not 0 <= self.adam_share <= 1) or not self.tolerance > 0:
            raise ValueError("adam_share must lie in [0, 1] and tolerance be positive")
        if self.learning_rate != "auto" and not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")

    def adam_epochs(self, batches: int) -> int:
        """How many of the epochs are Adam's, where one pass has so many batches."""
        if self.adam_share != "auto":
            wanted = round(self.adam_share * self.epochs)
        elif batches < _FEW_BATCHES:
            wanted = 0
        else:
            wanted = min(max(_ADAM_EPOCHS, batches // _BATCHES_AN_EPOCH), math.ceil(0.9 * self.epochs))
        return max(0, min(wanted, self.epochs - 1))

    def keeps(self, epoch: int, adam_epochs: int) -> bool:
        """Whether the parameters at the end of this Adam epoch (from 1) are a checkpoint."""
        count = min(self.keep_checkpoints, adam_epochs)
        return epoch in {round(adam_epochs * (i + 1) / count) for i in range(count)}


@dataclass(frozen=True)
class FitResult:
    """Where a fit ended.

    Attributes:
        params: the parameters reached; never worse than those at the start.
        epochs_done: passes made, the opening evaluation aside.
        objective, gradient_norm: at `params`, in units of the summed loss.
        decrement_bound: ½‖g‖²/(N·δ), how far from stationary in units of the summed loss; ∞ for δ = 0.
        stationary: whether the tolerance was reached.
        checkpoints: along Adam's way, oldest first; the end alone where Adam made no epoch.
    """

    params: Params
    epochs_done: int
    objective: float
    gradient_norm: float
    decrement_bound: float
    stationary: bool
    checkpoints: list[Params]
