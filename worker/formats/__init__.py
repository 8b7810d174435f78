"""Readers: from one uploaded file to its image-text pairs, streamed, whatever the file was written by.

Nothing here decodes an image, writes a shard or knows who asked. See `UploadReader`.
"""

from worker.formats.detection import Format
from worker.formats.limits import Limits
from worker.formats.pairs import EmbeddingBlock, ImagePair, Item, Json, Kind, RejectedPair
from worker.formats.refusals import UploadRefused
from worker.formats.upload_reader import UploadReader, detect_format, read_pairs

__all__ = [
    "EmbeddingBlock",
    "Format",
    "ImagePair",
    "Item",
    "Json",
    "Kind",
    "Limits",
    "RejectedPair",
    "UploadReader",
    "UploadRefused",
    "detect_format",
    "read_pairs",
]
