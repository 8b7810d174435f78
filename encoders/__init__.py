"""Images and captions → tensors: open_clip adapter, image decoding, model digests."""

from typing import TYPE_CHECKING, Any

from encoders.embedder import Embedder
from encoders.image_decoding import ImageRefused, Inspected, decode_image, inspect_image
from encoders.model_spec import Checkpoint, ModelRefused, ModelSpec
from encoders.square_heads import square_heads

if TYPE_CHECKING:
    from encoders.loaded_model import LoadedModel
    from encoders.loading import load_model

__all__ = [
    "Checkpoint",
    "Embedder",
    "ImageRefused",
    "Inspected",
    "LoadedModel",
    "ModelRefused",
    "ModelSpec",
    "decode_image",
    "inspect_image",
    "load_model",
    "square_heads",
]


def __getattr__(name: str) -> Any:
    # open_clip takes three times as long to import as torch itself: a worker that starts again after its death has
    # most of its work to do without.
    if name == "LoadedModel":
        from encoders.loaded_model import LoadedModel

        return LoadedModel
    if name == "load_model":
        from encoders.loading import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
