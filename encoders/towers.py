"""Both towers of an open_clip model as one pure function, with the pixels' normalisation inside it; and each tower cut
into features and head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import linear

from encoders.model_spec import ModelRefused
from encoders.projection import Projection, image_projection, text_projection


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


Encode = Callable[[Mapping[str, Tensor], Tensor], Tensor]


@dataclass(frozen=True)
class Tower:
    """`embedding = head(features(x))`. Without a projection that can be cut, features are the embedding itself."""

    encode: Encode
    state: dict[str, Tensor]
    embed_dim: int
    projection: Projection | None

    @classmethod
    def image(cls, towers: Towers, sample: Tensor) -> Tower:
        """`sample`: (1, 3, H, W) uint8, on which the cut is tried."""

        def encode(replaced: Mapping[str, Tensor], pixels: Tensor) -> Tensor:
            return cast("Tensor", towers.call(replaced, pixels, None)[1])

        return cls._cut("image", encode, towers.model.state_dict(), image_projection(towers.model), sample)

    @classmethod
    def text(cls, towers: Towers, sample: Tensor) -> Tower:
        """`sample`: (1, context_length) tokens, on which the cut is tried."""

        def encode(replaced: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
            return cast("Tensor", towers.call(replaced, None, tokens)[0])

        return cls._cut("text", encode, towers.model.state_dict(), text_projection(towers.model), sample)

    def features(self, inputs: Tensor) -> Tensor:
        """(n, …) → (n, D): what enters the head."""
        return self.encode(self.projection.identity(self.state) if self.projection else {}, inputs)

    def head(self) -> tuple[Tensor, Tensor | None]:
        """(weight (E, D), bias (E,) or None); the identity where nothing could be cut."""
        if self.projection is None:
            like = next(iter(self.state.values()))
            return torch.eye(self.embed_dim, device=like.device), None
        return self.projection.head(self.state)

    def restored(self, weight: Tensor, bias: Tensor | None) -> dict[str, Tensor]:
        """Entries of the state dict for an edited head. Raises ModelRefused("not_foldable")."""
        if self.projection is not None:
            return self.projection.restored(weight, bias)
        if not torch.equal(weight.cpu(), torch.eye(self.embed_dim, dtype=weight.dtype)):
            raise ModelRefused(
                "not_foldable",
                "a tower of this architecture does not end in a linear map, so its checkpoint has no place for an "
                "edited head; use the scope `all`",
                "scope",
            )
        return {}

    @classmethod
    def _cut(
        cls, kind: str, encode: Encode, state: dict[str, Tensor], candidate: Projection | None, sample: Tensor
    ) -> Tower:
        """Take the candidate only if, on the sample, head(features) is the embedding."""
        with torch.no_grad():
            try:
                embedding = encode({}, sample)
            except Exception as error:  # towers check their input by failing, each in its own way
                raise _refused(kind, f"fails on one input: {str(error)[:200]}") from error
            if not isinstance(embedding, Tensor) or embedding.ndim != 2:
                raise _refused(kind, "does not give one vector for each input")
            whole = cls(encode, state, embedding.shape[1], None)
            if candidate is None:
                return whole
            cut = cls(encode, state, embedding.shape[1], candidate)
            try:
                joined = linear(cut.features(sample), *candidate.head(state))
            except (RuntimeError, AssertionError):  # a width that the layers after it do not take
                return whole
            return cut if torch.allclose(joined, embedding, rtol=1e-3, atol=1e-4) else whole


def _refused(kind: str, reason: str) -> ModelRefused:
    return ModelRefused("unsupported_model", f"the {kind} tower {reason}", "architecture")
