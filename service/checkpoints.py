"""`/jobs/{id}/checkpoint`: the model that a removal has edited."""

import io
from collections.abc import Iterator
from contextlib import closing
from typing import IO

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from service.context import HeavyDep, Service, ServiceDep
from service.errors import problem_docs
from service.ranges import (
    DOWNLOAD_HEADERS,
    PART_HEADERS,
    ByteRange,
    IfRange,
    Range,
    download_headers,
    etag_of,
    part_headers,
)
from store import jobs
from store.errors import ConflictError, NotFoundError
from store.states import JobStatus

router = APIRouter(tags=["results"])

_SAFETENSORS = "application/octet-stream"
_CONTENT = {_SAFETENSORS: {"schema": {"type": "string", "format": "binary"}}}
_PIECE_BYTES = 1 << 20


@router.get(
    "/jobs/{job_id}/checkpoint",
    response_class=StreamingResponse,
    responses={
        200: {"content": _CONTENT, "description": "the model", "headers": DOWNLOAD_HEADERS},
        206: {"content": _CONTENT, "description": "the part that was asked for", "headers": PART_HEADERS},
        **problem_docs(404, 409, 416),
    },
)
async def get_checkpoint(
    job_id: str, service: ServiceDep, heavy: HeavyDep, range_: Range = None, if_range: IfRange = None
) -> StreamingResponse:
    """The edited weights as safetensors, under open_clip's own names; of a dataset of embeddings, its two heads."""
    blob = await heavy.run(_checkpoint_of, service, job_id)
    etag = etag_of(job_id, blob)
    headers = download_headers(f"{job_id}.safetensors", etag)
    wanted = ByteRange.of(range_, if_range, etag)
    if wanted is None:
        return StreamingResponse(heavy.each(service.blobs.stream(blob)), media_type=_SAFETENSORS, headers=headers)
    file = await heavy.run(service.blobs.open, blob)
    try:
        size = await heavy.run(file.seek, 0, io.SEEK_END)
        part = wanted.within(size)
    except BaseException:
        file.close()
        raise
    headers |= part_headers(part, size)
    pieces = heavy.each(_pieces(file, part))
    return StreamingResponse(pieces, status_code=206, media_type=_SAFETENSORS, headers=headers)


def _pieces(file: IO[bytes], part: range) -> Iterator[bytes]:
    with closing(file):
        file.seek(part.start)
        for start in range(part.start, part.stop, _PIECE_BYTES):
            yield file.read(min(_PIECE_BYTES, part.stop - start))


def _checkpoint_of(service: Service, job_id: str) -> str:
    with service.database.transaction() as session:
        job = jobs.get(session, job_id)
        if job.task != "removal":
            raise NotFoundError("no_checkpoint", f"job {job_id} is a {job.task}: only a removal leaves a checkpoint")
        if job.status != JobStatus.SUCCEEDED:
            raise ConflictError(
                "no_results", f"job {job_id} is {job.status}: its checkpoint is there once it succeeded"
            )
        if job.checkpoint_blob is None:
            raise NotFoundError("no_checkpoint", f"job {job_id} left no checkpoint")
        return job.checkpoint_blob
