"""Images and captions → tensors: open_clip adapter, model digests.

What is named here is imported when it is first asked for. open_clip takes three times as long to import as torch
itself: a worker that starts again after its death has most of its work to do without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from encoders.digest import encoder_versions
    from encoders.embedder import Embedder, square_heads
    from encoders.loaded_model import LoadedModel
    from encoders.loading import Description, describe, load_model
    from encoders.model_spec import Checkpoint, ModelRefused, ModelSpec

__all__ = [
    "Checkpoint",
    "Description",
    "Embedder",
    "LoadedModel",
    "ModelRefused",
    "ModelSpec",
    "describe",
    "encoder_versions",
    "load_model",
    "square_heads",
]

_MODULES = {
    "Checkpoint": "model_spec",
    "Description": "loading",
    "Embedder": "embedder",
    "LoadedModel": "loaded_model",
    "ModelRefused": "model_spec",
    "ModelSpec": "model_spec",
    "describe": "loading",
    "encoder_versions": "digest",
    "load_model": "loading",
    "square_heads": "embedder",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
