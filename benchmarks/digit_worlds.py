"""Real pictures: scanned digits with captions of several wordings, and small CLIP models trained on them."""

from __future__ import annotations

import random
from typing import Any, Final

import torch
from torch import Tensor

from benchmarks.worlds import Pairs, World, train_from_scratch, world_of
from ecif.parameters import Params
from encoders import LoadedModel, ModelSpec, load_model
from encoders.tiny import TINY_NAME

_WORDS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_PATTERNS: Final = (
    "a handwritten {}",
    "the digit {}",
    "a scan of a {}",
    "{} in pencil",
    "somebody wrote {}",
    "a small {}",
    "the number {}",
    "{} on paper",
)

SMALLEST: Final[dict[str, Any]] = {
    "embed_dim": 8,
    "vision_cfg": {
        "image_size": 8,
        "patch_size": 2,
        "width": 12,
        "layers": 1,
        "head_width": 6,
        "mlp_ratio": 2.0,
        "pool_type": "avg",
    },
    "text_cfg": {
        "context_length": 8,
        "vocab_size": 49408,
        "width": 12,
        "heads": 2,
        "layers": 1,
        "mlp_ratio": 2.0,
    },
}
"""A whole CLIP of under 4,096 parameters (the words that nobody uses aside), so that its curvature can be written out."""


def digits(model: LoadedModel, seed: int, n: int, n_validation: int, wrong: float) -> Pairs:
    """uint8 pixels and tokens for `model`: n training pairs, a share `wrong` of them with another digit's caption."""
    from sklearn.datasets import load_digits  # here, because it takes a second to import

    content, draw = load_digits(), random.Random(seed)
    order = draw.sample(range(len(content.target)), n + n_validation)
    swapped = set(draw.sample(range(n), round(wrong * n)))
    captions = []
    for place, index in enumerate(order):
        shown = int(content.target[index])
        said = draw.choice([digit for digit in range(10) if digit != shown]) if place in swapped else shown
        captions.append(draw.choice(_PATTERNS).format(_WORDS[said]))
    grey = torch.from_numpy(content.images[order]).float()[:, None] * (255 / 16)
    side = model.image_size[0]
    large = torch.nn.functional.interpolate(grey, size=(side, side), mode="bicubic") if side > 8 else grey
    pixels = large.clamp(0, 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    tokens = model.tokenize(captions).ids
    return Pairs(pixels, tokens, torch.unique(tokens, dim=0, return_inverse=True)[1], n)


def heads_on_digits(
    seed: int, *, n: int = 1024, wrong: float = 0.05, epochs: int = 15, batch_size: int = 64
) -> World:
    """Both heads of a `tiny` CLIP on its cached features, in float64, pulled to where training from scratch left them.

    The towers have learned from the same pairs, the wrong ones included, as those of a user have.
    """
    model = load_model(ModelSpec(TINY_NAME, None, seed))
    pairs = digits(model, seed, n, min(n, 360), wrong)
    whole = model.full()
    scale = 1 / whole.temperature
    raw = world_of(pairs, whole, whole.parameters, scale=scale, l2=1e-4, batch_size=batch_size, seed=seed)
    trained = load_trained(model, train_from_scratch(raw, epochs))
    with torch.no_grad():
        images, texts = trained.tower_features(pairs.images, pairs.texts)
    cached = Pairs(images.double(), texts.double(), pairs.captions, n)
    heads = trained.heads()
    start = {name: tensor.double() for name, tensor in heads.parameters.items()}
    return world_of(cached, heads, start, scale=scale, l2=0.3, batch_size=batch_size, seed=seed)


def load_trained(model: LoadedModel, params: Params) -> LoadedModel:
    """The model with these weights in place of its own."""
    model._model.load_state_dict(model.state_dict_with(params, "all"))
    return model


def whole_on_digits(seed: int, *, n: int = 256, wrong: float = 0.05, epochs: int = 40, l2: float = 0.3) -> World:
    """Every weight of the `SMALLEST` CLIP after some epochs from scratch: not at a minimum. float64.

    The token table holds the words in use only; the others are curved by the regulariser alone.
    """
    model = load_model(ModelSpec(SMALLEST, None, seed))
    pairs = digits(model, seed, n, 128, wrong)
    used, places = torch.unique(pairs.texts, return_inverse=True)  # sorted: the end of the text stays the highest
    whole = model.full()
    table = "token_embedding.weight"
    start = {name: tensor.double() for name, tensor in whole.parameters.items()}
    start[table] = start[table][used]

    pairs = Pairs(pairs.images, places, pairs.captions, n)
    raw = world_of(pairs, whole, start, scale=1 / whole.temperature, l2=1e-4, batch_size=32, seed=seed)
    trained = train_from_scratch(raw, epochs)
    return world_of(pairs, whole, trained, scale=1 / whole.temperature, l2=l2, batch_size=32, seed=seed)
