"""Real pictures: scanned digits with captions of several wordings, and small CLIP models trained on them."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.detection.digits import WORDINGS, WORDS, enlarged, scans
from benchmarks.worlds import Pairs, World, linear_heads, train_from_scratch, world_of
from ecif.parameters import Params
from encoders import LoadedModel, ModelSpec, load_model
from encoders.adapters import adapted, adapted_weights
from encoders.architectures import TINY_NAME


def smallest(width: int = 12) -> dict[str, Any]:
    """A whole CLIP of under 4,096 parameters (the words that nobody uses aside): its curvature can be written out."""
    return {
        "embed_dim": 8,
        "vision_cfg": {
            "image_size": 8,
            "patch_size": 2,
            "width": width,
            "layers": 1,
            "head_width": width // 2,
            "mlp_ratio": 2.0,
            "pool_type": "avg",
        },
        "text_cfg": {
            "context_length": 8,
            "vocab_size": 49408,
            "width": width,
            "heads": 2,
            "layers": 1,
            "mlp_ratio": 2.0,
        },
    }


def digits(model: LoadedModel, seed: int, n: int, n_validation: int, wrong: float) -> Pairs:
    """uint8 pixels and tokens for `model`: n training pairs, a share `wrong` of them with another digit's caption."""
    content, draw = scans(), random.Random(seed)
    order = draw.sample(range(len(content.target)), n + n_validation)
    swapped = set(draw.sample(range(n), round(wrong * n)))
    captions = []
    for place, index in enumerate(order):
        shown = int(content.target[index])
        said = draw.choice([digit for digit in range(10) if digit != shown]) if place in swapped else shown
        captions.append(draw.choice(WORDINGS).format(WORDS[said]))
    pixels = enlarged(content.images[order], model.image_size[0])
    tokens = model.tokenize(captions).ids
    return Pairs(pixels, tokens, torch.unique(tokens, dim=0, return_inverse=True)[1], n)


def heads_on_digits(
    seed: int,
    *,
    n: int = 1024,
    wrong: float = 0.05,
    epochs: int = 15,
    batch_size: int = 64,
    architecture: str | dict[str, Any] = TINY_NAME,
) -> World:
    """Both heads of a small CLIP on its cached features, in float64, pulled to where training from scratch left them.

    The towers have learned from the same pairs, the wrong ones included, as those of a user have.
    """
    model = load_model(ModelSpec(architecture, None, seed))
    pairs = digits(model, seed, n, min(n, 360), wrong)
    whole = model.full()
    scale = 1 / whole.temperature
    raw = world_of(pairs, whole, whole.parameters, scale=scale, l2=1e-4, batch_size=batch_size, seed=seed)
    trained = train_from_scratch(raw, epochs)
    heads = {"image.weight": trained["visual.proj"].T, "text.weight": trained["text_projection"].T}
    # A head's weight is kept as (D, E) there; with the identity in its place a tower gives what enters the head.
    no_heads = {name: torch.eye(len(trained[name])) for name in ("visual.proj", "text_projection")}
    with torch.no_grad():
        texts, images = whole({**trained, **no_heads}, pairs.images, pairs.texts)
    cached = Pairs(images.double(), texts.double(), pairs.captions, n)
    start = {name: weight.double().contiguous() for name, weight in heads.items()}
    return world_of(cached, linear_heads, start, scale=scale, l2=0.3, batch_size=batch_size, seed=seed)


def toy_heads(seed: int) -> World:
    """The smallest that still behaves."""
    return heads_on_digits(seed, n=96, epochs=20, batch_size=32, architecture=smallest())


def whole_on_digits(
    seed: int, *, n: int = 256, wrong: float = 0.05, epochs: int = 40, l2: float = 0.3, width: int = 12
) -> World:
    """Every weight of the `smallest` CLIP after some epochs from scratch: not at a minimum. float64.

    The token table holds the words in use only; the others are curved by the regulariser alone.
    """
    model = load_model(ModelSpec(smallest(width), None, seed))
    pairs, raw = _whole(model, seed, n, wrong)
    trained = train_from_scratch(raw, epochs)
    return world_of(pairs, raw.objective.embed, trained, scale=raw.objective.scale, l2=l2, batch_size=32, seed=seed)


def lora_on_digits(
    seed: int,
    *,
    n: int = 256,
    wrong: float = 0.05,
    epochs: int = 40,
    l2: float = 0.3,
    width: int = 12,
    rank: int = 2,
    alpha: float = 4.0,
) -> World:
    """Adapters on every linear map of that CLIP, trained for more epochs on the same pairs: at no minimum. float64.

    The sums W + (α/r)·B·A themselves stand in for the layers that the encoders build, which compute in float32.
    """
    model = load_model(ModelSpec(smallest(width), None, seed))
    pairs, raw = _whole(model, seed, n, wrong)
    frozen = train_from_scratch(raw, epochs)
    drawn = {name: tensor.double() for name, tensor in model.lora(rank, alpha, seed).parameters.items()}
    names = adapted_weights(drawn)

    def embed(params: Params, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        inside = {name: adapted(name, frozen, params, alpha) for name in names}
        return raw.objective.embed({**frozen, **inside}, images, texts)

    make = partial(world_of, pairs, embed, scale=raw.objective.scale, batch_size=32, seed=seed)
    return make(train_from_scratch(make(drawn, l2=1e-4), epochs), l2=l2)


def _whole(model: LoadedModel, seed: int, n: int, wrong: float) -> tuple[Pairs, World]:
    """Digits for every weight of a model as it is, in float64."""
    pairs = digits(model, seed, n, 128, wrong)
    used, places = torch.unique(pairs.texts, return_inverse=True)  # sorted: the end of the text stays the highest
    whole = model.full()
    table = "token_embedding.weight"
    start = {name: tensor.double() for name, tensor in whole.parameters.items()}
    start[table] = start[table][used]
    pairs = Pairs(pairs.images, places, pairs.captions, n)
    return pairs, world_of(pairs, whole, start, scale=1 / whole.temperature, l2=1e-4, batch_size=32, seed=seed)
