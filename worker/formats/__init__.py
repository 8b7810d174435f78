"""Readers: from one uploaded file to its image-text pairs, streamed, whatever the file was written by.

Nothing here decodes an image, writes a shard or knows who asked. See `UploadReader`.
"""

from worker.formats.detection import Format
from worker.formats.image_folder import DEFAULT_TEMPLATE
from worker.formats.limits import Limits
from worker.formats.listing import line_of, read_listed
from worker.formats.pairs import EmbeddingBlock, ImagePair, Item, Json, Kind, RejectedPair
from worker.formats.refusals import Rejection, UploadRefused
from worker.formats.upload_reader import UploadReader, detect_format, read_pairs

__all__ = [
    "DEFAULT_TEMPLATE",
    "EmbeddingBlock",
    "Format",
    "ImagePair",
    "Item",
    "Json",
    "Kind",
    "Limits",
    "RejectedPair",
    "Rejection",
    "UploadReader",
    "UploadRefused",
    "detect_format",
    "line_of",
    "read_listed",
    "read_pairs",
]
