"""What everything else asks of a loss: its value, its roles and its derivatives in the logits of one batch.

S (..., B, B) are the logits of B pairs, rows being texts and columns images, false negatives at `EXCLUDED`. A loss is a
term of each row of S plus the same term of each row of Sᵀ. What depends on the model, J = dS/dθ, is nothing of a loss.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ecif.roles import Negative


class RemovedTerms(NamedTuple):
    """The gradient in S of Pos_n + Neg_n of all n, by rows: Σ_f weights[f, k, n] (e_n − softmax[f, k, :]) in row k, and
    the same of Sᵀ in the columns. softmax, weights: (..., 2, B, B)."""

    softmax: Tensor
    weights: Tensor


class Loss(ABC):
    """A contrastive loss of the logits S.

    name: as a job's specification has it.
    largest_scale: that s may have, frozen or trained.
    biased: whether the logits have a bias b, S = s·u·v + b. Where they have none it would change nothing.
    lonely: whether a pair without negatives has a loss.
    shared: how much of Neg_n is the pair's own loss, beside all of Pos_n.
    """

    name: ClassVar[str]
    largest_scale: ClassVar[float]
    biased: ClassVar[bool]
    lonely: ClassVar[bool]
    shared: ClassVar[float]

    @abstractmethod
    def row_loss(self, S: Tensor) -> Tensor:
        """(..., B) ≥ 0: what pair n has of the loss in row n of S."""

    @abstractmethod
    def positive(self, S: Tensor) -> Tensor:
        """Pos_n, (..., B) ≥ 0: the terms in which pair n is the positive."""

    @abstractmethod
    def negative(self, S: Tensor, mode: Negative = "exact") -> Tensor:
        """Neg_n, (B,) ≥ 0, for S (B, B): what else leaves the loss with pair n, or its first order.

        Raises:
            ValueError: an unknown mode.
        """

    @abstractmethod
    def positive_derivative(self, S: Tensor, dS: Tensor) -> Tensor:
        """dPos, (..., B), for S (B, B) or of several batches and its changes dS (..., B, B)."""

    @abstractmethod
    def negative_derivative(self, S: Tensor, dS: Tensor, mode: Negative = "exact") -> Tensor:
        """dNeg, (..., B), likewise.

        Raises:
            ValueError: an unknown mode.
        """

    @abstractmethod
    def removal(self, S: Tensor, removed: Tensor) -> Tensor:
        """L(batch) − L(batch without R), a scalar, for S (B, B) and a set R, (B,) bool."""

    @abstractmethod
    def gradient(self, S: Tensor) -> Tensor:
        """∂L/∂S, (..., B, B)."""

    @abstractmethod
    def curvature(self, S: Tensor, dS: Tensor) -> Tensor:
        """∇²_S L · dS, (..., B, B), for dS (..., B, B). Positive semi-definite: L is convex in S."""

    @abstractmethod
    def sample_root(self, S: Tensor, k: int, generator: torch.Generator) -> Tensor:
        """k draws (k, ..., B, B) of mean zero and covariance ∇²_S L. `generator` is on the CPU."""

    @abstractmethod
    def removed_terms(self, S: Tensor, mode: Negative) -> RemovedTerms:
        """Of the rows of S (..., B, B)."""

    @abstractmethod
    def outputs(self, B: int) -> int:
        """M, how many output functions f a batch of B pairs has, each with a logistic loss log(1 + e^−f) (TRAK)."""

    @abstractmethod
    def mixed_outputs(self, S: Tensor, mixing: Tensor) -> Tensor:
        """Σ_m mixing[:, m] √(p_m (1 − p_m)) ∂f_m/∂S, (k, B, B), for mixing (k, M), p_m = sigmoid(f_m)."""

    def pair_loss(self, S: Tensor) -> Tensor:
        """(..., B): the pair's part of the batch's loss; they sum to it."""
        return self.row_loss(S) + self.row_loss(S.mT)

    def moved_pair_loss(self, S: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """`pair_loss` where S moves as each pair has it, (..., B): row[n] is how row n of S moves for pair n,
        column[:, n] how column n does. All (..., B, B)."""
        return self.row_loss(S + row) + self.row_loss((S + column).mT)
