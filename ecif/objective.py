"""The training objective and its gradients, streamed over batches (`docs/design.md`, section 1).

    (1/R) Σ_batches L_batch(θ) + N·(δ/2)·‖θ − θ_prior‖²,      L_batch a sum over its pairs (`losses`)

N pairs, R partitions, δ = `l2` per pair. When pairs are removed, N and θ_prior stay as they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ecif import heads
from ecif.batches import Batch
from ecif.losses import SOFTMAX, Loss
from ecif.parameters import Params, flatten
from ecif.similarity import exclude, false_negatives, similarity_matrix
from ecif.sums import Sums, Term, summed

Embed = Callable[[Params, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(params, images, texts) to un-normalised (text_embedding (B, E), image_embedding (B, E))."""

Batches = Callable[[], Iterable[Batch]]
"""One pass over the data: every call yields all batches of all R partitions, in the same order."""

LOGIT_SCALE = "logit_scale"
LOGIT_BIAS = "logit_bias"


def starting_logit_scale(scale: float, loss: Loss = SOFTMAX) -> float:
    """log s for training to start from, a hair under the cap: above it, as log 100 rounded may be, nothing pulls."""
    return math.log(min(scale, loss.largest_scale * (1 - 1e-6)))


@dataclass(frozen=True)
class Objective:
    """What is minimised, as a pure function of the trainable parameters.

    Attributes:
        embed: the model.
        scale: s = 1/τ, frozen; where the parameters hold "logit_scale", its exp is used, up to the loss's cap.
        l2: δ ≥ 0, per pair.
        prior: θ_prior; its names and shapes are those of the trainable parameters.
        n_pairs: N, the pairs of the whole training set.
        partitions: R, how many partitions one pass over the batches goes through.
        mask_duplicates: whether equal captions or images leave each other's denominators.
        linear: `embed` is that of two linear heads on fixed features, its parameters `text.weight` (E, Dt) and
            `image.weight` (E, Di), perhaps `text.bias` and `image.bias` (E,): derivatives are then taken in closed
            form, of several batches at once (`heads`).
        loss: of the logits of a batch.
        bias: b, added to every similarity, of a loss that has one; frozen, and "logit_bias" among the parameters is
            used instead.

    Raises:
        ValueError: a setting out of its range.
    """

    embed: Embed
    scale: float
    l2: float
    prior: Params
    n_pairs: int
    partitions: int = 1
    mask_duplicates: bool = True
    linear: bool = False
    loss: Loss = SOFTMAX
    bias: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.scale <= self.loss.largest_scale:
            raise ValueError(f"scale must lie in (0, {self.loss.largest_scale:g}], got {self.scale}")
        if not math.isfinite(self.bias) or (self.bias and not self.loss.biased):
            raise ValueError(f"bias must be finite, and 0 in the {self.loss.name} loss; got {self.bias}")
        if not 0 <= self.l2 < float("inf"):
            raise ValueError(f"l2 must be finite and not negative, got {self.l2}")
        if self.n_pairs < 1 or self.partitions < 1:
            raise ValueError("n_pairs and partitions must be at least 1")
        if not self.prior:
            raise ValueError("nothing to train: the prior holds no parameters")

    def closed_form(self, params: Params) -> bool:
        """Whether `heads` knows the derivatives at these parameters: a trained temperature is none of its own."""
        return self.linear and LOGIT_SCALE not in params

    def scale_of(self, params: Params) -> Tensor | float:
        """s at these parameters."""
        if LOGIT_SCALE in params:
            return params[LOGIT_SCALE].exp().clamp(max=self.loss.largest_scale)
        return self.scale

    def bias_of(self, params: Params) -> Tensor | float:
        """b at these parameters."""
        return params.get(LOGIT_BIAS, self.bias)

    def ridge(self, damping: float = 0.0) -> float:
        """N·(δ + λ), what the regulariser and the damping λ (per pair) add to every eigenvalue."""
        return self.n_pairs * (self.l2 + damping)

    def similarity(self, params: Params, batch: Batch) -> Tensor:
        """S (B, B), the logits, false negatives excluded."""
        text, image = self.embed(params, batch.images, batch.texts)
        S = similarity_matrix(text, image, self.scale_of(params))
        if self.loss.biased:
            S = S + self.bias_of(params)
        if self.mask_duplicates:
            S = exclude(S, false_negatives(batch.caption_group, batch.image_group))
        return S

    def batch_loss(self, params: Params, batch: Batch) -> Tensor:
        """L_batch, a scalar: the sum over the pairs, no regulariser."""
        return self.loss.pair_loss(self.similarity(params, batch)).sum()

    def batch_value_and_gradient(self, params: Params, batch: Batch) -> tuple[Tensor, Tensor]:
        """(L_batch scalar, its gradient (P,)), both detached, in the parameters' dtype."""
        if self.closed_form(params):
            return self.of_stack(heads.AtParams.of(self, params, batch))
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in params.items()}
        loss = self.batch_loss(leaves, batch)
        gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        return loss.detach(), flatten(dict(zip(leaves, gradients, strict=True)))

    def value_and_gradient(self, params: Params, batches: Iterable[Batch]) -> tuple[float, Tensor]:
        """The objective and its gradient (P,) float64, in one pass over all R partitions."""
        seen = self.evaluate(params, batches)
        return seen.value, seen.gradient

    def evaluate(self, params: Params, batches: Iterable[Batch]) -> Evaluation:
        """The same, and of how many batches it is."""
        loss, gradient, count = self._sum(params, batches)
        offset = (flatten(params) - flatten(self.prior)).detach().double()
        value = loss / self.partitions + 0.5 * self.ridge() * float(offset.square().sum())
        return Evaluation(value, gradient / self.partitions + self.ridge() * offset, count)

    def validation_value_and_gradient(self, params: Params, batches: Iterable[Batch], n: int) -> tuple[float, Tensor]:
        """L_val and ∇L_val (P,) float64: the mean over the n pairs that `batches` yields, unregularised.

        A pair counts once for each time it is yielded.
        """
        loss, gradient, _ = self._sum(params, batches)
        return loss / n, gradient / n

    def validation_gradient(self, params: Params, batches: Iterable[Batch], n: int) -> Tensor:
        """∇L_val, (P,) float64; see `validation_value_and_gradient`."""
        return self.validation_value_and_gradient(params, batches, n)[1]

    def _sum(self, params: Params, batches: Iterable[Batch]) -> tuple[float, Tensor, int]:
        sums = summed(LossAndGradient(), self, params, batches)
        return float(sums["loss"]), sums["gradient"], int(sums["batches"])

    def of_stack(self, at: heads.AtParams) -> tuple[Tensor, Tensor]:
        """The loss of all batches of a stack, and its gradient (P,)."""
        return self.loss.pair_loss(at.S).sum(), at.pull(self.loss.gradient(at.S)[None])[0]


@dataclass(frozen=True)
class Evaluation:
    """The objective, its gradient (P,) float64, and over how many batches it was summed."""

    value: float
    gradient: Tensor
    batches: int


@dataclass(frozen=True)
class LossAndGradient(Term):
    """Σ L_batch and its gradient (P,), float64, no regulariser; and how many batches that were."""

    def of(self, objective: Objective, params: Params, batches: Iterable[Batch], first: int) -> Sums:
        # Float64 sums of float32 batches: the total does not lose what one batch resolves.
        loss, gradient, count = 0.0, torch.zeros_like(flatten(params), dtype=torch.float64), 0
        if objective.closed_form(params):
            for stack in heads.stacked(batches):
                value, partial = objective.of_stack(heads.AtParams.of(objective, params, stack))
                loss, count = loss + float(value), count + len(stack.texts)
                gradient += partial
        else:
            for batch in batches:
                value, partial = objective.batch_value_and_gradient(params, batch)
                loss, count = loss + float(value), count + 1
                gradient += partial
        return {
            "loss": torch.tensor(loss, dtype=torch.float64),
            "gradient": gradient,
            "batches": torch.tensor(count),
        }


def in_bfloat16(embed: Embed) -> Embed:
    """The same model with its matrix products in bfloat16, by autocast on the device of the parameters.

    For the stochastic part of a fit, where that is precise enough (Micikevicius et al. 2018). Weights, gradients and
    everything from the embeddings on stay as wide as they were: at a scale of 100, similarities rounded to 8 bits
    would be off by 0.4. A line search, and every influence, needs more than bfloat16 resolves.
    """

    def coarse(params: Params, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(next(iter(params.values())).device.type, torch.bfloat16):
            return embed(params, images, texts)

    return coarse
