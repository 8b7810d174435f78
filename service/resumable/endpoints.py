"""`/uploads`: large files in pieces, resumed after whatever interrupts them, by tus 1.0."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response
from starlette.concurrency import run_in_threadpool

from service.bodies import too_large
from service.context import Service, ServiceDep
from service.errors import CHECKSUM_MISMATCH, MediaTypeError, VersionError, header_docs, problem_docs
from service.idempotency import REPLAYED, IdempotencyKey, IdempotentRequest, idempotent_request
from service.resumable import protocol
from service.resumable.receiving import receive
from store import uploads
from store.idempotency import Answer

router = APIRouter(tags=["uploads"])

_BODY = {
    "requestBody": {
        "required": True,
        "content": {protocol.MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
}
_VERSION = header_docs(Tus_Resumable="the version spoken")
_EXPIRES = header_docs(Upload_Expires="when it is forgotten, unless more comes")
_OFFSET = header_docs(Upload_Offset="how many bytes are kept")


def _tus(
    service: ServiceDep,
    tus_resumable: Annotated[str, Header(description="the version that the client speaks")] = protocol.VERSION,
) -> Service:
    if tus_resumable != protocol.VERSION:
        raise VersionError("unknown_version", f"tus {protocol.VERSION} is spoken here")
    return service


TusDep = Annotated[Service, Depends(_tus)]


@router.options(
    "/uploads",
    status_code=204,
    responses={
        204: {"headers": _VERSION | header_docs(Tus_Version="all there are", Tus_Extension="those that are known")}
    },
)
def tell_tus(service: ServiceDep) -> Response:
    """What of tus is spoken here."""
    headers = {
        "Tus-Version": protocol.VERSION,
        "Tus-Extension": protocol.EXTENSIONS,
        "Tus-Max-Size": str(service.settings.ecif_max_upload_bytes),
        "Tus-Checksum-Algorithm": ",".join(protocol.CHECKSUM_ALGORITHMS),
    }
    return Response(status_code=204, headers=headers)


@router.post(
    "/uploads",
    status_code=201,
    response_class=Response,
    responses={
        201: {
            "headers": _VERSION
            | _EXPIRES
            | header_docs(Location="the upload")
            | header_docs(False, Idempotency_Replayed=REPLAYED)
        },
        **problem_docs(409, 412, 413),
    },
)
async def create_upload(
    service: TusDep,
    upload_length: Annotated[int, Header(ge=0, le=2**62, description="bytes of the whole file")],
    upload_metadata: Annotated[
        str | None, Header(max_length=4096, description="`key base64,…`; `filename` names the dataset")
    ] = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Announce a file. Send it with PATCH, then name it in `POST /datasets`: `{"upload": "up_…"}`. Who announces it
    again under the same `Idempotency-Key` is told of the same upload, and goes on with it where HEAD says."""
    async with idempotent_request(service, "POST /uploads", idempotency_key) as idempotent:
        return await run_in_threadpool(_create, service, upload_length, upload_metadata, idempotent)


def _create(service: Service, length: int, metadata_header: str | None, idempotent: IdempotentRequest) -> Response:
    content = {"length": length, "metadata": metadata_header}
    if (answered := idempotent.first_answer(content)) is not None:
        return answered
    if length > service.settings.ecif_max_upload_bytes:
        raise too_large(service.settings.ecif_max_upload_bytes)
    protocol.metadata(metadata_header or "")
    retention = timedelta(seconds=service.settings.ecif_upload_kept_seconds)
    with service.database.transaction() as session:
        service.limits.room_for_bytes(session, length)
        upload = uploads.create(session, length=length, metadata_header=metadata_header, lifetime=retention)
        headers = {"Location": f"/uploads/{upload.id}", "Upload-Expires": protocol.expires(upload.expires_at)}
        return idempotent.record_answer(session, content, Answer(201, headers, ""))


@router.head(
    "/uploads/{upload_id}",
    response_class=Response,
    responses={
        200: {"headers": _VERSION | _OFFSET | _EXPIRES | header_docs(Upload_Length="bytes of the whole file")},
        **problem_docs(404, 412),
    },
)
def head_upload(upload_id: str, service: TusDep) -> Response:
    """How much of an upload is kept: that is where to go on."""
    with service.database.transaction() as session:
        upload = uploads.get(session, upload_id)
    headers = {
        "Upload-Offset": str(upload.received),
        "Upload-Length": str(upload.length),
        "Upload-Expires": protocol.expires(upload.expires_at),
        "Cache-Control": "no-store",
    }
    if upload.metadata_header is not None:
        headers["Upload-Metadata"] = upload.metadata_header
    return Response(headers=headers)


@router.patch(
    "/uploads/{upload_id}",
    status_code=204,
    responses={
        204: {"headers": _VERSION | _OFFSET | _EXPIRES},
        **problem_docs(404, 408, 409, 412, 413, 415, CHECKSUM_MISMATCH, 507),
    },
    openapi_extra=_BODY,
)
async def patch_upload(
    upload_id: str,
    request: Request,
    service: TusDep,
    upload_offset: Annotated[int, Header(ge=0, le=2**62, description="where the body goes on: what HEAD tells")],
    upload_checksum: Annotated[
        str | None, Header(max_length=200, description="`sha1` or `sha256`, a space, the body's digest in base64")
    ] = None,
) -> Response:
    """Go on with an upload. What came before an interruption is kept; HEAD tells how much."""
    if request.headers.get("content-type", "").strip().lower() != protocol.MEDIA_TYPE:
        raise MediaTypeError("unsupported_media_type", f"send {protocol.MEDIA_TYPE}")
    checksum = protocol.Checksum.of(upload_checksum) if upload_checksum is not None else None
    upload = await receive(request, service, upload_id, upload_offset, checksum)
    headers = {"Upload-Offset": str(upload.received), "Upload-Expires": protocol.expires(upload.expires_at)}
    return Response(status_code=204, headers=headers)


@router.delete(
    "/uploads/{upload_id}",
    status_code=204,
    responses={204: {"headers": _VERSION}, **problem_docs(404, 409, 412)},
)
def delete_upload(upload_id: str, service: TusDep) -> None:
    """Give an upload up."""
    with service.database.transaction() as session:
        upload = uploads.delete(session, upload_id)
    service.digests.forget(upload_id)
    service.blobs.delete_prefix(f"datasets/{upload.dataset_id}")
