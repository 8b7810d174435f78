"""`/jobs/{id}/export`: the whole of a job's results, in the formats that tools read."""

from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from service.concurrency import Heavy
from service.context import HeavyDep, Service, ServiceDep
from service.errors import problem_docs
from service.exports.npy import npy_chunks
from service.exports.parquet import parquet_chunks
from service.exports.source import Keep, Source
from service.exports.tars import open_clip_chunks, webdataset_chunks
from service.exports.text import csv_chunks, jsonl_chunks
from service.exports.verdicts import verdict_chunks
from service.ranges import (
    DOWNLOAD_HEADERS,
    PART_HEADERS,
    ByteRange,
    IfRange,
    Range,
    cut,
    download_headers,
    etag_of,
    length_of,
    part_headers,
)
from store.settings import CODE_VERSION

router = APIRouter(tags=["results"])

Format = Literal["csv", "jsonl", "parquet", "npy", "webdataset", "open_clip", "verdicts"]

_ABOUT_FORMATS = """csv is safe to open in a spreadsheet: text that would be a formula has an apostrophe before it; the
other formats are exact. npy: the sorted uids, as DataComp has them. webdataset, open_clip: a tar with the images.
verdicts: which sample of which shard to keep or drop, as JSON lines, for `select()` of the client."""


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
    "verdicts": _Written(verdict_chunks, "application/x-ndjson", "verdicts.jsonl"),
}

_CONTENT: dict[str, Any] = {
    written.media_type.partition(";")[0]: {"schema": {"type": "string", "format": "binary"}}
    for written in _FORMATS.values()
}
_VERDICTS = {"application/x-ndjson": {"schema": {"type": "string"}}}


@router.get(
    "/jobs/{job_id}/export",
    response_class=StreamingResponse,
    responses={
        200: {"content": _CONTENT, "description": "the pairs in rank order", "headers": DOWNLOAD_HEADERS},
        206: {
            "content": _CONTENT,
            "description": "the part that was asked for",
            "headers": PART_HEADERS,
        },
        **problem_docs(404, 409, 416),
    },
)
async def export_results(
    job_id: str,
    service: ServiceDep,
    heavy: HeavyDep,
    form: Annotated[Format, Query(alias="format", description=_ABOUT_FORMATS)] = "csv",
    keep: Annotated[Keep, Query(description="all, only the flagged, or only those that are not")] = "all",
    range_: Range = None,
    if_range: IfRange = None,
) -> StreamingResponse:
    """Every scored pair of a job that succeeded: its scores, and every column that it came with.

    A download that was cut goes on with `Range`. The service then goes through the export once before it answers.
    """
    return await _export(job_id, service, heavy, form, keep, range_, if_range)


@router.get(
    "/jobs/{job_id}/verdicts",
    response_class=StreamingResponse,
    responses={
        200: {"content": _VERDICTS, "description": "a verdict a line", "headers": DOWNLOAD_HEADERS},
        206: {"content": _VERDICTS, "description": "the part that was asked for", "headers": PART_HEADERS},
        **problem_docs(404, 409, 416),
    },
)
async def get_verdicts(
    job_id: str, service: ServiceDep, heavy: HeavyDep, range_: Range = None, if_range: IfRange = None
) -> StreamingResponse:
    """Which samples to keep and which to drop, for loaders: `shard`, `key`, `verdict` and `suspicion` of every scored
    pair, as JSON lines. It is the export of format `verdicts`."""
    return await _export(job_id, service, heavy, "verdicts", "all", range_, if_range)


async def _export(
    job_id: str, service: Service, heavy: Heavy, form: Format, keep: Keep, range_: str | None, if_range: str | None
) -> StreamingResponse:
    written = _FORMATS[form]
    source = await heavy.run(Source.of, job_id, keep, service.database, service.blobs)
    etag = _etag(source, form, keep)
    headers = download_headers(f"{job_id}.{keep}.{written.suffix}", etag)
    wanted = ByteRange.of(range_, if_range, etag)
    if wanted is None:
        pieces = heavy.each(await heavy.run(written.chunks, source))
        return StreamingResponse(pieces, media_type=written.media_type, headers=headers)
    size = service.export_sizes.get(etag)
    if size is None:
        size = await length_of(heavy.each(await heavy.run(written.chunks, source.with_blanks())))
        service.export_sizes.put(etag, size)
    part = wanted.within(size)
    pieces = cut(heavy.each(await heavy.run(written.chunks, source)), part)
    headers |= part_headers(part, size)
    return StreamingResponse(pieces, status_code=206, media_type=written.media_type, headers=headers)


def _etag(source: Source, form: Format, keep: Keep) -> str:
    """Of the bytes of an export. Results never change; marks do, and what writes them may, with a release."""
    writers = [CODE_VERSION, *([version("pyarrow")] if form == "parquet" else [])]
    return etag_of(source.job_id, form, keep, source.marks, *writers)
