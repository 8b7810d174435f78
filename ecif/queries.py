"""What a misprediction is, as a loss (design section 4, task 3): one image among candidate texts."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.func import vjp, vmap

from ecif.forward_mode import forward_mode
from ecif.objective import Objective
from ecif.parameters import Params, flatten
from ecif.similarity import similarity_matrix

QueryLoss = Literal["cross_entropy", "margin"]


def candidate_scores(objective: Objective, params: Params, images: Tensor, candidates: Tensor) -> Tensor:
    """S (q, c) = s · cosine of every query image with every candidate text."""
    text, image = objective.embed(params, images, candidates)
    return similarity_matrix(text, image, objective.scale_of(params)).mT


def query_losses(S: Tensor, true: Tensor, predicted: Tensor, loss: QueryLoss) -> Tensor:
    """(q,): −log softmax(S)[true], or the margin S[predicted] − S[true]. true, predicted (q,) int64 places in c."""
    rows = torch.arange(S.shape[0], device=S.device)
    if loss == "margin":
        return S[rows, predicted] - S[rows, true]
    return S.logsumexp(1) - S[rows, true]


def query_gradients(
    objective: Objective,
    params: Params,
    images: Tensor,
    candidates: Tensor,
    true: Tensor,
    predicted: Tensor,
    loss: QueryLoss,
) -> Tensor:
    """∇ of every query's loss, (q, P)."""

    def losses(p: Params) -> Tensor:
        return query_losses(candidate_scores(objective, p, images, candidates), true, predicted, loss)

    with forward_mode(), torch.no_grad():
        reverse = vjp(losses, params)[1]
        each = torch.eye(len(true), device=true.device, dtype=next(iter(params.values())).dtype)
        return flatten(vmap(reverse, chunk_size=32)(each)[0], leading=1)
