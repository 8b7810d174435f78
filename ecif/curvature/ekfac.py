"""EK-FAC: a Kronecker-factored eigenbasis for every linear map, with the curvature measured along it.

George et al. 2018, *Fast Approximate Natural Gradient Descent in a Kronecker-factored Eigenbasis*; Grosse et al. 2023,
*Studying Large Language Model Generalization with Influence Functions*. For a weight W (E × D) and pseudo-gradients
G (E × D) of covariance that of the Gauss-Newton matrix,

    (1/R) Σ E[vec G vec Gᵀ] ≈ (Q_E ⊗ Q_D) diag(Λ) (Q_E ⊗ Q_D)ᵀ,      Λ[a, b] = (1/R) Σ E[(Q_Eᵀ G Q_D)[a, b]²],

Q_E and Q_D being the eigenvectors of Σ G Gᵀ and Σ GᵀG. Departure: the textbook factors Σ x xᵀ and Σ δ δᵀ take a
batch's examples for independent, yet one sampled label of a contrastive batch moves every embedding of it, and what
all inputs have in common cancels (the label's and the expected image, δ_y − Σ_j p_j δ_j). So the *batch* is the
example: G is Jᵀξ for labels ξ sampled for all rows and columns (never the observed ones: no empirical Fisher), cross
terms included: the left and right factors are those of Shampoo (Gupta et al. 2018, arXiv 1802.09568). They need no
hooks: any two-dimensional parameter is a linear map, its bias, and whatever else, has a diagonal. Blocks between maps
are left out, which for two heads that face each other costs (`docs/record.md`).

A side of more than `LONGEST` keeps its own coordinates (Q = I), as if its factor were diagonal; so does Shampoo with
long sides. Such a side counts things that are looked up, the rows of an embedding table, and a factor would be as wide
as the vocabulary squared. The other side has its factor, and every eigenvalue is measured as ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ecif.batches import Batch, generator
from ecif.linearise import directions_at_once, pull
from ecif.objective import Batches, Objective
from ecif.parameters import Params, flatten, size, unflatten
from ecif.solve.solution import OnState, Solution, State

DRAWS = 8  # of labels for each batch
LONGEST = 8192
"""The longest side that gets a factor: 0.5 GB, and four minutes of a CPU core for its eigenvectors. Of
open_clip's linear maps only ViT-e-14 has longer ones (15,360); the vocabularies of its models begin at 32,000."""

Sums = dict[str, Tensor]
"""Sums over batches, of every pass separately; merged by adding up, so that shards can make them."""


@dataclass(frozen=True)
class Bases:
    """Per linear map, the orthonormal columns it is diagonal in: left (E, E) and right (D, D), float64; a side that is
    missing keeps its coordinates."""

    left: Params
    right: Params

    def rotate(self, gradients: Params, back: bool = False) -> Params:
        """Gradients (k, *shape) into the bases, Q_Eᵀ G Q_D, or back out of them; other parameters as they are."""
        turned = dict(gradients)
        for name, Q in self.left.items():
            turned[name] = (Q if back else Q.mT) @ turned[name]
        for name, Q in self.right.items():
            turned[name] = turned[name] @ (Q.mT if back else Q)
        return turned


@dataclass(frozen=True)
class Ekfac:
    """The finished curvature; build it by `Ekfac.of`, or from sums of shards by `bases` and `Ekfac.finish`.

    Attributes:
        bases: the eigenbases; eigenvalues (P,) float64 along them, N(δ + λ) included.
    """

    bases: Bases
    eigenvalues: Tensor
    like: Params

    @classmethod
    def of(
        cls,
        objective: Objective,
        params: Params,
        batches: Batches,
        *,
        damping: float = 0.0,
        draws: int = DRAWS,
        seed: int = 0,
    ) -> Ekfac:
        """In two passes over the data, draws of labels for each batch in both.

        Raises:
            ValueError: N(δ + λ) is 0.
        """
        eigenbases = bases(merge(factors(objective, params, b, i, draws, seed) for i, b in enumerate(batches())))
        # Other labels than those that chose the bases: along their own principal axes they would look too large.
        along = merge(curvatures(objective, params, b, i, eigenbases, draws, seed + 1) for i, b in enumerate(batches()))
        return cls.finish(objective, params, eigenbases, along, damping=damping)

    @classmethod
    def finish(
        cls, objective: Objective, params: Params, eigenbases: Bases, along: Sums, *, damping: float = 0.0
    ) -> Ekfac:
        """From the bases and the merged `curvatures` of all batches."""
        ridge = objective.ridge(damping)
        if not ridge > 0:
            raise ValueError("ekfac needs l2 or damping above 0")
        return cls(
            eigenbases, flatten(along) / objective.partitions + ridge, {n: t.detach() for n, t in params.items()}
        )

    def solve(self, rhs: Tensor, *, state: State | None = None, on_state: OnState | None = None) -> Solution:
        """The approximation's inverse times rhs (k, P), in float64."""
        like = {name: tensor.double() for name, tensor in self.like.items()}
        inside = flatten(self.bases.rotate(unflatten(rhs.double(), like)), leading=1) / self.eigenvalues
        x = flatten(self.bases.rotate(unflatten(inside, like), back=True), leading=1)
        residual = torch.zeros(rhs.shape[0], dtype=torch.float64, device=rhs.device)
        ends = (float(self.eigenvalues.min()), float(self.eigenvalues.max()))
        return Solution(x, 0, residual, ends, converged=True)

    def probes(self, k: int, seed: int) -> Tensor:
        """k draws (k, P) float64 of covariance H⁻¹: directions for `probed_self_influence`."""
        like = {name: tensor.double() for name, tensor in self.like.items()}
        normal = torch.randn(k, self.eigenvalues.numel(), dtype=torch.float64, generator=generator(seed, -2))
        inside = normal.to(self.eigenvalues.device) / self.eigenvalues.sqrt()
        return flatten(self.bases.rotate(unflatten(inside, like), back=True), leading=1)


def factors(objective: Objective, params: Params, batch: Batch, place: int, draws: int, seed: int) -> Sums:
    """Σ G Gᵀ and Σ GᵀG of every linear map over `draws` labellings of one batch, of sides up to `LONGEST`; `place` is
    the index of the batch in a pass."""
    return merge(
        {
            f"{side}.{name}": rows @ rows.mT
            for name, G in gradients.items()
            if G.ndim == 3
            for side, at, rest in (("left", 1, 2), ("right", 2, 1))
            if G.shape[at] <= LONGEST
            for rows in (G.permute(at, 0, rest).flatten(1),)
        }
        for gradients in _pseudo_gradients(objective, params, batch, place, draws, seed)
    )


def curvatures(
    objective: Objective, params: Params, batch: Batch, place: int, eigenbases: Bases, draws: int, seed: int
) -> Sums:
    """E[G²] in the eigenbases, for one batch: the corrected eigenvalues, shaped as the parameters."""
    return merge(
        {name: G.square().sum(0) / draws for name, G in eigenbases.rotate(gradients).items()}
        for gradients in _pseudo_gradients(objective, params, batch, place, draws, seed)
    )


def merge(parts: Iterable[Sums]) -> Sums:
    """The sum of sums, in any grouping; they are taken one at a time."""
    total: Sums = {}
    for part in parts:
        total = {name: total[name] + part[name] for name in part} if total else dict(part)
    return total


def bases(sums: Sums) -> Bases:
    """The eigenvectors of the merged `factors` (of none, where no parameter is a linear map)."""
    turned = {name: torch.linalg.eigh(matrix)[1] for name, matrix in sums.items()}
    side = {
        which: {n[len(which) :]: Q for n, Q in turned.items() if n.startswith(which)} for which in ("left.", "right.")
    }
    return Bases(side["left."], side["right."])


def _pseudo_gradients(
    objective: Objective, params: Params, batch: Batch, place: int, draws: int, seed: int
) -> Iterator[Params]:
    """Those of all draws, as many at a time as memory allows."""
    S, back = pull(objective, params, batch)
    like = {name: tensor.double() for name, tensor in params.items()}
    roots = objective.loss.sample_root(S, draws, generator(seed, place))
    for some in torch.split(roots, directions_at_once(size(params), draws)):
        yield unflatten(back(some).double(), like)
