"""Images and captions → tensors: open_clip adapter, image decoding, model digests."""

from encoders.embedder import Embedder
from encoders.image_decoding import ImageRefused, decode_image, inspect_image
from encoders.loaded_model import LoadedModel
from encoders.loading import load_model
from encoders.model_spec import ModelRefused, ModelSpec
from encoders.square_heads import square_heads
from encoders.weights import Checkpoint

__all__ = [
    "Checkpoint",
    "Embedder",
    "ImageRefused",
    "LoadedModel",
    "ModelRefused",
    "ModelSpec",
    "decode_image",
    "inspect_image",
    "load_model",
    "square_heads",
]
