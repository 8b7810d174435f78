"""Something that embeds pairs as a pure function of its parameters; heads for datasets of precomputed embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

Parameters = dict[str, Tensor]
Embed = Callable[[Parameters, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Embedder:
    """`embedder(parameters, images, texts)` → (text embeddings (B, E), image embeddings (B, E)), not normalised.

    Pure: nothing outside `parameters`, `images` and `texts` changes the answer or is changed, so it works under
    every transform of `torch.func`. Images and texts do not meet, and may differ in number.

    parameters: a copy of the weights it starts from; yours to change.
    temperature: τ, what the cosines are divided by.
    logit_bias: b, added to them then, of a model trained with the sigmoid loss.
    """

    parameters: Parameters
    temperature: float
    embed: Embed
    logit_bias: float | None = None

    def __call__(self, parameters: Parameters, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        return self.embed(parameters, images, texts)


def linear_heads(
    image: tuple[Tensor, Tensor | None], text: tuple[Tensor, Tensor | None], temperature: float
) -> Embedder:
    """Two linear heads on fixed features: images (B, Di) and texts (B, Dt) float32, of one dtype with the weights.

    Each head is (weight (E, D), bias (E,) or None). Parameters: `image.weight`, `text.weight`, and `image.bias`,
    `text.bias` where there is one.
    """
    given = {"image.weight": image[0], "image.bias": image[1], "text.weight": text[0], "text.bias": text[1]}
    parameters = {name: tensor.detach().clone() for name, tensor in given.items() if tensor is not None}
    return Embedder(parameters, temperature, _apply_heads)


def _apply_heads(parameters: Parameters, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    return (
        linear(texts, parameters["text.weight"], parameters.get("text.bias")),
        linear(images, parameters["image.weight"], parameters.get("image.bias")),
    )


DEFAULT_TEMPERATURE = 0.01


def square_heads(image_width: int, text_width: int, temperature: float = DEFAULT_TEMPERATURE) -> Embedder:
    """Two E × E heads that start at the identity, applied before normalisation.

    Raises ValueError when the widths differ: such embeddings have no cosine.
    """
    if image_width != text_width:
        raise ValueError(f"image embeddings are {image_width} wide, text embeddings {text_width}: they must agree")
    return linear_heads((torch.eye(image_width), None), (torch.eye(text_width), None), temperature)
