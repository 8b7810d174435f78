"""A model in bfloat16 where that is precise enough: the stochastic part of a fit (Micikevicius et al. 2018).

Weights, gradients and everything from the embeddings on stay as wide as they were: at a scale of 100, similarities
rounded to 8 bits would be off by 0.4. A line search, and every influence, needs more than bfloat16 resolves.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ecif.objective import Embed
from ecif.parameters import Params


def in_bfloat16(embed: Embed) -> Embed:
    """The same model with its matrix products in bfloat16, by autocast on the device of the parameters."""

    def coarse(params: Params, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(next(iter(params.values())).device.type, torch.bfloat16):
            return embed(params, images, texts)

    return coarse
