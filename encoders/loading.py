"""A specification → a model ready to embed, kept for the next job that names the same one.

Pretrained weights come from a tag that open_clip knows, or from a checkpoint that a user brought. Nothing here
unpickles an object. open_clip asks the hub for `.safetensors` first; an older `.bin` or `.pt` goes through
`torch.load(weights_only=True)`, which builds tensors and nothing else. A user's checkpoint is `.safetensors`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from open_clip import download_pretrained, get_pretrained_cfg, load_checkpoint
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from safetensors import SafetensorError, safe_open
from torch import nn

from encoders.architectures import Architecture, resolve_architecture
from encoders.construction import build
from encoders.loaded_model import LoadedModel
from encoders.model_spec import Checkpoint, ModelRefused, ModelSpec
from encoders.tokenising import build_tokenizer


@dataclass(frozen=True)
class Description:
    """A model without its weights. config: open_clip's own. preprocess: all of it but the size, which the model has.
    tag: what open_clip says of the pretrained weights; empty where there are none."""

    config: dict[str, Any]
    preprocess: dict[str, Any]
    tag: dict[str, Any]


def describe(spec: ModelSpec) -> Description:
    """What a specification names; nothing is downloaded or built.

    Raises ModelRefused (unknown_architecture, unknown_pretrained, invalid_model_config, unsupported_model).
    """
    architecture = resolve_architecture(spec.architecture)
    config, tag = architecture.config, _tag(architecture, spec.pretrained) if spec.pretrained else {}
    if tag.get("quick_gelu"):
        # Such weights were trained with that activation; open_clip only warns, and embeds wrongly.
        config = {**config, "quick_gelu": True}
    preprocess = merge_preprocess_dict(asdict(PreprocessCfg()), tag)
    return Description(config, merge_preprocess_dict(preprocess, architecture.preprocess), tag)


def _tag(architecture: Architecture, name: str) -> dict[str, Any]:
    tag: dict[str, Any] = get_pretrained_cfg(architecture.name, name)
    if tag:
        return tag
    known = ", ".join(architecture.pretrained) or "none: leave `pretrained` null to start at random"
    raise ModelRefused(
        "unknown_pretrained",
        f"{architecture.name} has no pretrained weights {name[:80]!r}; known: {known}",
        "pretrained",
    )


def fill(model: nn.Module, path: Path, name: str) -> None:
    """Load the checkpoint into `model`, in place. Raises ModelRefused("weights_mismatch")."""
    try:
        load_checkpoint(model, str(path), strict=True, weights_only=True)
    except Exception as error:  # a checkpoint is a stranger's file
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelRefused(
            "weights_mismatch", f"{name} does not fit the architecture: {reason}", "pretrained"
        ) from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values()):
        raise ModelRefused("weights_mismatch", f"{name} holds values that are not finite", "pretrained")


def _names_in(path: Path) -> set[str]:
    """The names of the tensors of a `.safetensors`, of which nothing else is read; none where it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return set(file.keys())
    except (OSError, SafetensorError):  # another kind of file, or a broken one: `fill` says which
        return set()


def _download(tag: dict[str, Any], name: str) -> Path:
    try:
        return Path(download_pretrained(tag))
    except Exception as error:  # open_clip lets each hub's and each transport's own exceptions through
        source = tag.get("hf_hub") or tag.get("url")
        raise ModelRefused(
            "weights_unavailable",
            f"the weights {name} could not be downloaded from {source}; is there a network, and is the hub up?",
            "pretrained",
        ) from error


MAX_PARAMETERS: Final = 10_000_000_000
_CACHED_MODELS: Final = 2

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
            while len(_models) >= _CACHED_MODELS:  # before loading: three never share the memory
                _models.popitem(last=False)
            model = _load(spec, device, checkpoint, max_parameters)
        _models[key] = model
        return model


def _load(
    spec: ModelSpec, device: str | torch.device, checkpoint: Checkpoint | None, max_parameters: int
) -> LoadedModel:
    described = describe(spec)
    downloaded = _download(described.tag, spec.pretrained) if spec.pretrained else None
    config = described.config
    with checkpoint.local_path() if checkpoint and not downloaded else nullcontext(downloaded) as path:
        if checkpoint and path and config.get("init_logit_bias") is None and "logit_bias" in _names_in(path):
            config = {**config, "init_logit_bias": 0.0}  # trained with the sigmoid loss; the checkpoint says with which
        model = build(config, spec.seed, max_parameters)
        if path:
            fill(model, path, spec.pretrained or "the checkpoint")
    preprocess = {**described.preprocess, "size": cast("Any", model).visual.image_size}
    return LoadedModel(model.to(device), config, preprocess, build_tokenizer(config))
