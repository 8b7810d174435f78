"""Both towers of an open_clip model as one pure function, with the pixels' normalisation inside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call


class Towers(nn.Module):
    """(images (n, 3, H, W) uint8, tokens (m, context) int64) → (text (m, E), image (n, E)), not normalised.

    Either may be None, and then its embedding is.
    """

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model: Any = model
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(3, 1, 1), persistent=False)

    def forward(self, images: Tensor | None, tokens: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """See the class."""
        text = None if tokens is None else self._encode_texts(tokens)
        image = None if images is None else self.model.encode_image(self.normalise(images))
        return text, image

    def _encode_texts(self, tokens: Tensor) -> Tensor:
        # Captions often repeat (classes, templates): each distinct one goes through the tower once.
        distinct, place = torch.unique(tokens, dim=0, return_inverse=True)
        if len(distinct) == len(tokens):
            return cast("Tensor", self.model.encode_text(tokens))
        return cast("Tensor", self.model.encode_text(distinct)[place])

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 pixels → what open_clip's own preprocessing gives, in the weights' dtype."""
        dtype = next(self.model.visual.parameters()).dtype
        return ((images.float() / 255 - self.mean) / self.std).to(dtype)

    def call(
        self, parameters: Mapping[str, Tensor], images: Tensor | None, tokens: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """`forward` with some of the model's weights, named as in its state dict, replaced."""
        renamed = {f"model.{name}": tensor for name, tensor in parameters.items()}
        return cast(
            "tuple[Tensor | None, Tensor | None]", functional_call(self, renamed, (images, tokens), strict=False)
        )
