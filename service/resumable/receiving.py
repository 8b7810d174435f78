"""One PATCH: bytes that go on where an upload stopped.

They are kept piece by piece, each acknowledged in the transaction that writes it, so a connection or a process that
dies costs one piece at most. A body with a checksum is acknowledged at its end, all or nothing.
"""

from dataclasses import dataclass
from datetime import timedelta

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from service.bodies import chunks, declared_length
from service.context import Service
from service.errors import ChecksumError, MalformedError, StalledError, TooLargeError
from service.resumable.protocol import Checksum
from store import uploads
from store.errors import DomainError
from store.tables import Upload


@dataclass
class _Patch:
    service: Service
    upload: Upload
    checksum: Checksum | None
    written: int
    """how far the bytes are on the disk; with a checksum, further than is acknowledged"""

    def write(self, piece: bytes) -> None:
        try:
            self._write(piece)
        except BaseException:
            self.service.digests.forget(self.upload.id)
            raise

    def _write(self, piece: bytes) -> None:
        if self.checksum is not None:
            self.checksum.update(piece)
        with self.service.database.transaction() as session:
            upload = uploads.locked_for(session, self.upload.id, self.upload.writer or "")
            if piece:
                self.service.blobs.put_piece(uploads.blob_of(upload), self.written, piece)
                digest = self.service.digests.add(upload.id, self.written, piece)
                self.written += len(piece)
                if self.written == upload.length:
                    upload.digest = digest
            if self.checksum is None:
                self._acknowledge(upload)

    def finish(self) -> Upload:
        if self.checksum is not None and not self.checksum.holds():
            self.service.digests.forget(self.upload.id)
            raise ChecksumError("checksum_mismatch", "the body is not what its checksum was made of: send it again")
        with self.service.database.transaction() as session:
            upload = uploads.locked_for(session, self.upload.id, self.upload.writer or "")
            self._acknowledge(upload)
            return uploads.refreshed(session, upload)

    def _acknowledge(self, upload: Upload) -> None:
        uploads.acknowledge(upload, self.written, timedelta(seconds=self.service.settings.ecif_upload_kept_seconds))


async def receive(request: Request, service: Service, upload_id: str, offset: int, checksum: Checksum | None) -> Upload:
    """Take the body in from byte `offset` on; return the row as it is then.

    Raises:
        NotFoundError: there is no such upload.
        ConflictError: it goes on at another byte, or another request goes on with it, or it is a dataset already.
        TooLargeError: there is more than the upload was announced with.
        StalledError, MalformedError: the body stopped coming; what came of it is kept.
        ChecksumError: it came changed; nothing of it is kept.
        OSError: there is no room; what was acknowledged is kept.
    """
    upload = await run_in_threadpool(_begin, service, upload_id, offset)
    if declared_length(request) > upload.length - offset:
        raise _too_long(upload)
    patch = _Patch(service, upload, checksum, offset)
    pending = bytearray()
    try:
        async for chunk in chunks(request):
            if patch.written + len(pending) + len(chunk) > upload.length:
                raise _too_long(upload)
            pending += chunk
            if len(pending) >= service.blobs.piece_bytes:
                await run_in_threadpool(patch.write, bytes(pending))
                pending.clear()
    except (ClientDisconnect, StalledError) as error:
        await run_in_threadpool(patch.write, bytes(pending))
        if isinstance(error, DomainError):
            raise
        raise MalformedError("body_cut_short", "the body ended early: ask where to go on, and go on") from None
    await run_in_threadpool(patch.write, bytes(pending))
    return await run_in_threadpool(patch.finish)


def _begin(service: Service, upload_id: str, offset: int) -> Upload:
    with service.database.transaction() as session:
        return uploads.begin(session, upload_id, offset)


def _too_long(upload: Upload) -> TooLargeError:
    return TooLargeError("upload_too_long", f"there is more than the {upload.length:,} bytes that were announced")
