"""`/datasets/{id}/pairs/{key}/image`: bytes as they are stored. No image is decoded here."""

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Response

from service.context import ServiceDep
from service.errors import problem_docs
from store import datasets, pairs, thumbnails
from store.blobs import Blobs
from store.errors import NotFoundError
from store.exports import Exported
from store.tables import Pair, Part

router = APIRouter(tags=["datasets"])


def shown(
    blobs: Blobs, part: Part | None, pair: Pair | Exported, size: int | None, most_bytes: int | None = None
) -> tuple[bytes, str]:
    """The image of a pair as it came, or the thumbnail that fits into `size` pixels each way, with its media type.

    An image that fits, and one that was ingested before thumbnails were made, comes as it came.

    Raises:
        NotFoundError: there is no image, its dataset was deleted, or it came with more than `most_bytes`.
    """
    if part is None or pair.row is None or pair.image_format is None or not pair.image_length:
        raise NotFoundError("no_image", f"pair {pair.key!r} has no image: its dataset is one of embeddings")
    if size is not None and not _fits(pair, size):
        thumbnail = thumbnails.read(blobs, part, pair.row, size)
        if thumbnail is not None:
            return thumbnail, "image/jpeg"
    if most_bytes is not None and pair.image_length > most_bytes:
        raise NotFoundError("no_image", f"the image of pair {pair.key!r} takes {pair.image_length} bytes")
    try:
        content = blobs.get_range(part.blob, pair.image_offset or 0, pair.image_length)
    except FileNotFoundError:
        raise NotFoundError("no_image", f"the image of pair {pair.key!r} is deleted") from None
    return content, f"image/{pair.image_format.lower()}"


def _fits(pair: Pair | Exported, size: int) -> bool:
    """Whether an image larger than every thumbnail may be fits; a smaller one may still take many bytes."""
    return size > thumbnails.SIZES[-1] and max(pair.width or 0, pair.height or 0) <= size


def image_url(dataset_id: str, key: str | None, *, has_image: bool) -> str | None:
    """Where the image of a pair is; `None` of one without an image or a key."""
    if not has_image or key is None:
        return None
    return f"/datasets/{dataset_id}/pairs/{quote(key, safe='')}/image"


@router.get(
    "/datasets/{dataset_id}/pairs/{key:path}/image",
    response_class=Response,
    responses={200: {"content": {"image/*": {}}, "description": "the image"}, **problem_docs(404)},
)
def get_image(
    dataset_id: str,
    key: str,
    service: ServiceDep,
    size: Annotated[
        int | None,
        Query(ge=8, le=1024, description="the thumbnail that fits into this many pixels square: of 64 or of 256"),
    ] = None,
) -> Response:
    """The image as it came, or a thumbnail of it: a JPEG that ingest made.

    An image that is as small comes as it came, and so does one ingested before thumbnails were made.
    """
    with service.database.transaction() as session:
        dataset = datasets.get(session, dataset_id)
        pair = pairs.by_key(session, dataset.number, key)
        part = datasets.part(session, dataset_id, pair.part)
    content, media_type = shown(service.blobs, part, pair, size)
    guarded = {
        "Cache-Control": "private, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    return Response(content, media_type=media_type, headers=guarded)
