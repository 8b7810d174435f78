"""Where a fit stands, as a value that can be stored as tensors and taken up again."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ecif.fit.adam import Adam
from ecif.fit.lbfgs import Lbfgs
from ecif.fit.line_search import LineSearch
from ecif.solve.solution import State


@dataclass(frozen=True)
class FitState:
    """A fit between two steps.

    Attributes:
        start, start_value, start_gradient: the opening point (P,), the objective and its gradient there.
        checkpoints: (c, P), the ends of some of Adam's epochs, oldest first.
        adam: Adam's state while its epochs last, and its end thereafter.
        search: L-BFGS's state, as soon as its epochs have begun.
        epoch: passes made, the opening evaluation aside.
        adam_epochs: how many epochs are Adam's; the number made, if it has ended early.
        batches, pairs: of the Adam epoch under way, already stepped through.
        seen: (P,) float64, the sum of that epoch's gradients so far, each where Adam then stood.
    """

    start: Tensor
    start_value: float
    start_gradient: Tensor
    checkpoints: Tensor
    adam: Adam
    seen: Tensor
    adam_epochs: int
    search: Lbfgs | None = None
    epoch: int = 0
    batches: int = 0
    pairs: int = 0

    @property
    def theta(self) -> Tensor:
        """(P,), the point stood at."""
        return self.adam.theta if self.search is None else self.search.theta

    def to_state(self) -> State:
        """Tensors only; numbers are 0-dimensional."""
        state = {
            "start": self.start,
            "start_value": _number(self.start_value),
            "start_gradient": self.start_gradient,
            "checkpoints": self.checkpoints,
            "seen": self.seen,
            "adam_epochs": torch.tensor(self.adam_epochs),
            "epoch": torch.tensor(self.epoch),
            "batches": torch.tensor(self.batches),
            "pairs": torch.tensor(self.pairs),
            "adam.theta": self.adam.theta,
            "adam.mean": self.adam.mean,
            "adam.square": self.adam.square,
            "adam.steps": torch.tensor(self.adam.steps),
        }
        if self.search is not None:
            state |= {
                "search.theta": self.search.theta,
                "search.value": _number(self.search.value),
                "search.gradient": self.search.gradient,
                "search.direction": self.search.direction,
                "search.line": self.search.line.to_tensor(),
                "search.low_gradient": self.search.low_gradient,
                "search.moves": self.search.moves,
                "search.turns": self.search.turns,
                "search.products": self.search.products,
                "search.stuck": torch.tensor(self.search.stuck),
            }
        return state

    @classmethod
    def from_state(cls, state: State, like: Tensor) -> FitState:
        """The inverse of `to_state`, on the device of `like`, the flat parameters (P,).

        Raises:
            ValueError: the state belongs to other parameters.
        """
        if state["start"].shape != like.shape or state["start"].dtype != like.dtype:
            raise ValueError("the state belongs to other parameters")
        on = {name: tensor.to(like.device) for name, tensor in state.items()}
        now = cls(
            start=on["start"],
            start_value=float(on["start_value"]),
            start_gradient=on["start_gradient"],
            checkpoints=on["checkpoints"],
            adam=Adam(on["adam.theta"], on["adam.mean"], on["adam.square"], int(on["adam.steps"])),
            seen=on["seen"],
            adam_epochs=int(on["adam_epochs"]),
            epoch=int(on["epoch"]),
            batches=int(on["batches"]),
            pairs=int(on["pairs"]),
        )
        if "search.theta" not in on:
            return now
        search = Lbfgs(
            theta=on["search.theta"],
            value=float(on["search.value"]),
            gradient=on["search.gradient"],
            direction=on["search.direction"],
            line=LineSearch.from_tensor(on["search.line"]),
            low_gradient=on["search.low_gradient"],
            moves=on["search.moves"],
            turns=on["search.turns"],
            products=on["search.products"],
            stuck=bool(on["search.stuck"]),
        )
        return replace(now, search=search)


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)
