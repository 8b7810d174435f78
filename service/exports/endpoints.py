"""`/jobs/{id}/export`: the whole of a job's results, in the formats that tools read."""

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from service.context import HeavyDep, ServiceDep
from service.errors import header_docs, problem_docs
from service.exports.npy import npy_chunks
from service.exports.parquet import parquet_chunks
from service.exports.source import Keep, Source
from service.exports.tars import open_clip_chunks, webdataset_chunks
from service.exports.text import csv_chunks, jsonl_chunks

router = APIRouter(tags=["results"])

Format = Literal["csv", "jsonl", "parquet", "npy", "webdataset", "open_clip"]

_ABOUT_FORMATS = """csv is safe to open in a spreadsheet: text that would be a formula has an apostrophe before it; the
other formats are exact. npy: the sorted uids, as DataComp has them. webdataset, open_clip: a tar with the images."""


class _Written(NamedTuple):
    chunks: Callable[[Source], Iterator[str] | Iterator[bytes]]
    media_type: str
    suffix: str


_FORMATS: dict[Format, _Written] = {
    "csv": _Written(csv_chunks, "text/csv; charset=utf-8", "csv"),
    "jsonl": _Written(jsonl_chunks, "application/x-ndjson", "jsonl"),
    "parquet": _Written(parquet_chunks, "application/vnd.apache.parquet", "parquet"),
    "npy": _Written(npy_chunks, "application/octet-stream", "npy"),
    "webdataset": _Written(webdataset_chunks, "application/x-tar", "webdataset.tar"),
    "open_clip": _Written(open_clip_chunks, "application/x-tar", "open_clip.tar"),
}

_CONTENT: dict[str, Any] = {
    written.media_type.partition(";")[0]: {"schema": {"type": "string", "format": "binary"}}
    for written in _FORMATS.values()
}


@router.get(
    "/jobs/{job_id}/export",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": _CONTENT,
            "description": "the pairs in rank order",
            "headers": header_docs(Content_Disposition="a name for the file"),
        },
        **problem_docs(404, 409),
    },
)
async def export_results(
    job_id: str,
    service: ServiceDep,
    heavy: HeavyDep,
    form: Annotated[Format, Query(alias="format", description=_ABOUT_FORMATS)] = "csv",
    keep: Annotated[Keep, Query(description="all, only the flagged, or only those that are not")] = "all",
) -> StreamingResponse:
    """Every scored pair of a job that succeeded: its scores, and every column that it came with."""
    written = _FORMATS[form]
    chunks = await heavy.run(lambda: written.chunks(Source.of(job_id, keep, service.database, service.blobs)))
    return StreamingResponse(
        heavy.each(chunks),
        media_type=written.media_type,
        headers={
            "Content-Disposition": f'attachment; filename="{job_id}.{keep}.{written.suffix}"',
            "X-Content-Type-Options": "nosniff",
        },
    )
