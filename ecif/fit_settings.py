"""What a fit is asked to do, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ecif.parameters import Params


@dataclass(frozen=True)
class FitSettings:
    """How to fit.

    Attributes:
        epochs: passes over the data (all partitions), Adam's and L-BFGS's together; the opening evaluation
            of the starting point comes on top.
        learning_rate: Adam's peak, or "auto" for `automatic_learning_rate`.
        adam_share: of the epochs; the rest, at least one, is L-BFGS.
        tolerance: stop at ½‖g‖²/(N·δ) ≤ tolerance in units of the summed loss; with δ = 0 at a gradient
            norm of tolerance times that of the starting point.
        keep_checkpoints: parameter copies kept, evenly spaced over Adam's epochs.
        state_every: Adam steps between two states handed out.

    Raises:
        ValueError: a setting out of its range.
    """

    epochs: int
    learning_rate: float | Literal["auto"] = "auto"
    adam_share: float = 0.6
    tolerance: float = 1e-3
    keep_checkpoints: int = 4
    state_every: int = 16

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.keep_checkpoints < 0 or self.state_every < 1:
            raise ValueError("epochs and keep_checkpoints must not be negative, state_every be at least 1")
        if not 0 <= self.adam_share <= 1 or not self.tolerance > 0:
            raise ValueError("adam_share must lie in [0, 1] and tolerance be positive")
        if self.learning_rate != "auto" and not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")

    @property
    def adam_epochs(self) -> int:
        """How many of the epochs are Adam's."""
        return max(0, min(round(self.adam_share * self.epochs), self.epochs - 1))

    @property
    def checkpoint_epochs(self) -> frozenset[int]:
        """The Adam epochs whose ends are kept."""
        kept = min(self.keep_checkpoints, self.adam_epochs)
        return frozenset(round(self.adam_epochs * (i + 1) / kept) for i in range(kept))


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
