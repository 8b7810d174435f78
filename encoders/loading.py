"""A specification → a model ready to embed, kept for the next job that names the same one."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import asdict
from typing import Any, Final, cast

import torch
from open_clip.transform import PreprocessCfg, merge_preprocess_dict

from encoders.architectures import resolve_architecture
from encoders.construction import build
from encoders.loaded_model import LoadedModel
from encoders.model_spec import Checkpoint, ModelSpec
from encoders.tokenising import build_tokenizer
from encoders.weights import fill, find_weights

MAX_PARAMETERS: Final = 10_000_000_000
_KEPT: Final = 2

_models: OrderedDict[tuple[str, ...], LoadedModel] = OrderedDict()
_lock = threading.Lock()


def load_model(
    spec: ModelSpec,
    device: str | torch.device = "cpu",
    *,
    checkpoint: Checkpoint | None = None,
    max_parameters: int = MAX_PARAMETERS,
) -> LoadedModel:
    """The model on `device`. This process keeps the two used last.

    checkpoint: weights in place of `spec.pretrained`.
    Raises ModelRefused.
    """
    digest = checkpoint.digest if checkpoint else ""
    key = (spec.canonical(), str(torch.device(device)), str(max_parameters), digest)
    with _lock:
        model = _models.pop(key, None)
        if model is None:
            while len(_models) >= _KEPT:  # before loading: three never share the memory
                _models.popitem(last=False)
            model = _load(spec, device, checkpoint, max_parameters)
        _models[key] = model
        return model


def _load(
    spec: ModelSpec, device: str | torch.device, checkpoint: Checkpoint | None, max_parameters: int
) -> LoadedModel:
    architecture = resolve_architecture(spec.architecture)
    weights = find_weights(architecture, spec.pretrained) if spec.pretrained else None
    config = architecture.config
    if weights and weights.quick_gelu:
        # Such weights were trained with that activation; open_clip only warns, and embeds wrongly.
        config = {**config, "quick_gelu": True}
    model = build(config, spec.seed, max_parameters)
    preprocess = merge_preprocess_dict(asdict(PreprocessCfg()), weights.preprocess if weights else {})
    preprocess = merge_preprocess_dict(preprocess, architecture.preprocess)
    preprocess["size"] = cast("Any", model).visual.image_size
    if weights:
        fill(model, weights.path, weights.name)
    elif checkpoint:
        with checkpoint.local_path() as path:
            fill(model, path, "the checkpoint")
    return LoadedModel(model.to(device), config, preprocess, build_tokenizer(config))
