"""Small CLIP models of our own: one that was pretrained elsewhere, and one from scratch on the noisy pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor

from benchmarks.worlds import Pairs, train_from_scratch, world_of
from ecif.parameters import Params
from encoders import LoadedModel, ModelSpec, load_model


@dataclass(frozen=True)
class Embedded:
    """images, texts: (n, E) float32, as the model embeds them, not normalised."""

    images: Tensor
    texts: Tensor


def new_model(architecture: str | dict[str, Any], seed: int) -> LoadedModel:
    """With random weights."""
    return load_model(ModelSpec(architecture, None, seed))


def train(
    model: LoadedModel,
    images: Tensor,
    captions: Sequence[str],
    *,
    epochs: int,
    seed: int,
    on_epoch: Callable[[int, Params], None] | None = None,
) -> Params:
    """Every weight but the temperature, by Adam in batches of 128. images (n, side, side, 3) uint8."""
    pixels, tokens = inputs(model, images, captions)
    groups = torch.unique(tokens, dim=0, return_inverse=True)[1]
    whole = model.full()
    world = world_of(
        Pairs(pixels, tokens, groups, len(tokens)),
        whole,
        whole.parameters,
        scale=1 / whole.temperature,
        l2=1e-4,
        batch_size=128,
        seed=seed,
    )
    return train_from_scratch(world, epochs, on_epoch)


def inputs(model: LoadedModel, images: Tensor, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Pixels (n, 3, H, W) uint8 and token ids (n, length), as the service prepares them."""
    return model.prepare_images(Image.fromarray(image.numpy()) for image in images), model.tokenize(captions).ids


@torch.no_grad()
def embed(model: LoadedModel, params: Params, images: Tensor, captions: Sequence[str]) -> Embedded:
    """All pairs under these weights."""
    pixels, tokens = inputs(model, images, captions)
    whole = model.full()
    texts, pictures = [], []
    for places in torch.split(torch.arange(len(tokens)), 512):
        text, image = whole(params, pixels[places], tokens[places])
        texts.append(text)
        pictures.append(image)
    return Embedded(torch.cat(pictures), torch.cat(texts))


def embedded_by(
    pretrained: Path, architecture: str | dict[str, Any], images: Tensor, captions: Sequence[str]
) -> Embedded:
    """Pairs under the weights of a file."""
    model, weights = new_model(architecture, 0), load_file(pretrained)
    return embed(model, {name: weights[name] for name in model.full().parameters}, images, captions)


def as_file(model: LoadedModel, params: Params) -> bytes:
    """The weights as `POST /models` takes them."""
    return save({name: tensor.contiguous() for name, tensor in model.state_dict_with(params, "all").items()})
