"""Multipart bodies, streamed: files go to disk and are hashed on the way; small fields stay in memory.

The framework's own form parser spools every file a second time and does not bound it
(docs/decisions/0004-uploads.md).
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from service.bodies import MAX_FIELD_BYTES, chunks, declared_length, refuse_large, too_large
from service.context import Service
from service.errors import MalformedError, MediaTypeError, TooLargeError, nearest
from service.idempotency import IdempotentRequest
from store.errors import InvalidError

_WRITE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class UploadedFile:
    """A file part, whole on disk."""

    path: Path
    filename: str | None
    size_bytes: int
    digest: str  # "sha256:…" of its bytes


@dataclass
class Form:
    """A multipart body, read."""

    files: dict[str, UploadedFile] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)

    def content(self) -> dict[str, str]:
        """What was sent, whatever the boundaries and the names of the files: digests of files, fields as they are."""
        return {name: file.digest for name, file in self.files.items()} | self.fields


@dataclass
class _Part:
    name: str
    filename: str | None
    path: Path | None  # None: a field, kept in `content`
    file: IO[bytes] | None
    hasher: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    size: int = 0
    content: bytearray = field(default_factory=bytearray)


class _Reader:
    """Collects what the push parser calls back with."""

    def __init__(
        self, boundary: bytes, folder: Path, file_names: Collection[str], field_names: Collection[str]
    ) -> None:
        self.form = Form()
        self._folder = folder
        self._file_names = file_names
        self._field_names = field_names
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._part: _Part | None = None
        self.ended = False
        self.parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._headers.clear,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def close(self) -> None:
        if self._part is not None and self._part.file is not None:
            self._part.file.close()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[bytes(self._header_name).lower()] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        known = [*self._file_names, *self._field_names]
        if name not in known:
            raise InvalidError(
                "unknown_field",
                f"unknown form field {name!r}{nearest(name, known)}; known: {', '.join(known)}",
                name or "form",
            )
        if name in self.form.files or name in self.form.fields:
            raise InvalidError("repeated_field", f"form field {name!r} is given twice", name)
        filename = options.get(b"filename")
        if name not in self._file_names:
            self._part = _Part(name, None, None, None)
            return
        if filename is None:
            raise InvalidError("not_a_file", f"form field {name!r} must be a file", name)
        path = self._folder / name
        self._part = _Part(name, filename.decode("utf-8", "replace"), path, path.open("wb"))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        assert part is not None  # noqa: S101  the parser finishes headers before data
        part.size += end - start
        if part.file is not None:
            chunk = memoryview(data)[start:end]
            part.hasher.update(chunk)
            part.file.write(chunk)
        elif part.size > MAX_FIELD_BYTES:
            raise TooLargeError(
                "field_too_large", f"form field {part.name!r} is over {MAX_FIELD_BYTES} bytes", part.name
            )
        else:
            part.content += data[start:end]

    def _on_part_end(self) -> None:
        part = self._part
        assert part is not None  # noqa: S101
        if part.file is not None and part.path is not None:
            part.file.close()
            digest = "sha256:" + part.hasher.hexdigest()
            self.form.files[part.name] = UploadedFile(part.path, part.filename, part.size, digest)
        else:
            try:
                self.form.fields[part.name] = part.content.decode("utf-8")
            except UnicodeDecodeError:
                raise InvalidError("not_utf8", f"form field {part.name!r} is not UTF-8", part.name) from None
        self._part = None

    def _on_end(self) -> None:
        self.ended = True


async def read_form(
    request: Request,
    folder: Path,
    *,
    files: Collection[str],
    fields: Collection[str],
    max_bytes: int,
    count: Callable[[int], None],
) -> Form:
    """Read a multipart body, its files into `folder`. Memory stays bounded whatever the size. `count` is given the
    number of bytes of each chunk before it is kept, and may raise.

    Raises:
        MediaTypeError: the body is not multipart.
        MalformedError: it is broken, or ends too early.
        TooLargeError: it is over `max_bytes`.
        StalledError: nothing came for a minute.
        InvalidError: a field is unknown, given twice, or of the wrong kind.
    """
    media_type, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if media_type != b"multipart/form-data" or not boundary:
        raise MediaTypeError("not_multipart", "send multipart/form-data with a boundary")
    refuse_large(request, max_bytes)
    reader = _Reader(boundary, folder, files, fields)
    received, pending = 0, bytearray()
    try:
        async for chunk in chunks(request):
            received += len(chunk)
            if received > max_bytes:
                raise too_large(max_bytes)
            count(len(chunk))
            pending += chunk
            if len(pending) >= _WRITE_BYTES:
                # Hashing and writing are slow enough to hold up other requests: off the event loop.
                await run_in_threadpool(reader.parser.write, bytes(pending))
                pending.clear()
        await run_in_threadpool(reader.parser.write, bytes(pending))
        reader.parser.finalize()
    except (MultipartParseError, ClientDisconnect) as error:
        raise MalformedError("malformed_multipart", f"the multipart body is broken: {error}") from None
    finally:
        reader.close()
    if not reader.ended:
        raise MalformedError("malformed_multipart", "the multipart body ends before its closing boundary")
    return reader.form


@asynccontextmanager
async def staged_form(
    request: Request, service: Service, idempotent: IdempotentRequest, *, files: Sequence[str], fields: Sequence[str]
) -> AsyncIterator[Form]:
    """The form, its files staged for as long as the block lasts.

    Nobody's limits stand in the way of a repeat, which keeps nothing.

    Raises:
        LimitError, and whatever `read_form` raises.
    """
    room = None if idempotent.repeated else await run_in_threadpool(service.limits.room, service.database)
    most, declared = service.settings.ecif_max_upload_bytes, declared_length(request)
    refuse_large(request, most)
    with service.incoming.counted(service.tenant, room, declared) as count, service.blobs.staging() as folder:
        yield await read_form(request, folder, files=files, fields=fields, max_bytes=most, count=count)
