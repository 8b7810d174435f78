"""Uploads in pieces (tus 1.0), taken up where they stopped: by whoever sends the same under the same key."""

from base64 import b64encode
from collections.abc import Iterator

import httpx

from ecif_client._sync.connection import Connection
from ecif_client.errors import ApiError
from ecif_client.idempotency import headers_of, is_replay
from ecif_client.sources import Seen, Source
from ecif_client.waiting import blocking

PIECE_BYTES = 32 << 20
_TUS = {"Tus-Resumable": "1.0.0"}
_ELSEWHERE = ("wrong_offset", "upload_taken_over")  # the service says where it goes on


class Sending:
    """One upload under way. `offset` is where it goes on; `None` where only the service knows."""

    def __init__(
        self, connection: Connection, path: str, source: Source, seen: Seen, offset: int | None = None
    ) -> None:
        self._connection = connection
        self._path = path
        self._source = source
        self._seen = seen
        self.offset = offset
        self.id = path.rpartition("/")[2]

    @classmethod
    def begin(cls, connection: Connection, source: Source, digest: str, key: str, seen: Seen) -> "Sending":
        """Announce a file, or take up the upload that this key has led to before."""
        metadata = {"filename": source.name, "digest": digest}
        encoded = ",".join(f"{name} {b64encode(value.encode()).decode()}" for name, value in metadata.items())
        headers = {**_TUS, **headers_of(key), "Upload-Length": str(source.size), "Upload-Metadata": encoded}
        answer = connection.ask("POST", "/uploads", headers=headers)
        path = httpx.URL(answer.headers["Location"]).path
        return cls(connection, path, source, seen, None if is_replay(answer) else 0)

    def finish(self) -> None:
        """Send what the service does not have yet.

        Raises:
            ApiError: with code `upload_not_found`, it has expired.
        """
        while self.offset is None or self.offset < self._source.size:
            self._connection.again(self._piece)

    def _piece(self) -> None:
        offset, self.offset = self.offset, None
        if offset is None:
            answer = self._connection.once("HEAD", self._path, headers=_TUS)
            offset = int(answer.headers["Upload-Offset"])
        stop = min(offset + PIECE_BYTES, self._source.size)
        self._seen(offset, self._source.size)
        if offset < stop:
            headers = {
                **_TUS,
                "Upload-Offset": str(offset),
                "Content-Type": "application/offset+octet-stream",
                "Content-Length": str(stop - offset),
            }
            try:
                self._connection.once("PATCH", self._path, headers=headers, content=self._body(offset, stop))
            except ApiError as error:
                error.again = error.again or error.code in _ELSEWHERE
                raise
        self.offset = stop

    def _body(self, start: int, stop: int) -> Iterator[bytes]:
        chunks = self._source.chunks(start, stop)
        while chunk := blocking(next, chunks, b""):
            yield chunk
            start += len(chunk)
            self._seen(start, self._source.size)
