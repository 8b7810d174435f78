"""tus 1.0: the words of the protocol (https://tus.io/protocols/resumable-upload)."""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import MalformedError
from store.database import storable_text

VERSION = "1.0.0"
EXTENSIONS = "creation,expiration,termination,checksum"
CHECKSUM_ALGORITHMS = ("sha1", "sha256")
MEDIA_TYPE = "application/offset+octet-stream"
_OVERRIDE = b"x-http-method-override"


class TusHeaders:
    """Says the version in every answer of `/uploads`, errors included, and lets a client whose network knows no PATCH
    send a POST that says what it means."""

    def __init__(self, app: ASGIApp, prefixes: Sequence[str]) -> None:
        self._app = app
        self._places = tuple(f"{prefix}/uploads/" for prefix in prefixes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not f"{scope['path']}/".startswith(self._places):
            await self._app(scope, receive, send)
            return

        async def send_with_version(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Tus-Resumable"] = VERSION
            await send(message)

        meant = dict(scope["headers"]).get(_OVERRIDE, b"").decode("latin-1").upper()
        if scope["method"] == "POST" and meant in ("PATCH", "DELETE"):
            scope = {**scope, "method": meant}
        await self._app(scope, receive, send_with_version)


def expires(at: datetime) -> str:
    """A time as HTTP writes it."""
    return format_datetime(at.astimezone(UTC), usegmt=True)


def metadata(header: str) -> dict[str, str]:
    """What a client says of its file.

    Raises:
        MalformedError: it is not a list of keys, each with a value in base64.
    """
    values = {}
    for pair in header.split(",") if header.strip() else []:
        key, _, value = pair.strip().partition(" ")
        try:
            if not key:
                raise ValueError("a key is empty")  # noqa: TRY301
            values[key] = base64.b64decode(value.strip(), validate=True).decode("utf-8", "replace")
        except (binascii.Error, ValueError) as error:
            raise MalformedError("malformed_metadata", f"Upload-Metadata: {key[:100]!r}: {error}") from None
    return values


def filename(header: str | None) -> str | None:
    """The name of the file, if its client gave one."""
    name = metadata(header or "").get("filename")
    return storable_text(name)[:1000] if name else None


@dataclass
class Checksum:
    """What the body of one request is to hash to."""

    algorithm: str
    wanted: bytes

    def __post_init__(self) -> None:
        self._running = hashlib.new(self.algorithm, usedforsecurity=False)

    @classmethod
    def of(cls, header: str) -> "Checksum":
        """Read `Upload-Checksum`.

        Raises:
            MalformedError: it is not an algorithm that is known here and a digest of it.
        """
        algorithm, _, value = header.partition(" ")
        try:
            checksum = cls(algorithm, base64.b64decode(value, validate=True))
        except (binascii.Error, ValueError):
            checksum = None
        if checksum is None or algorithm not in CHECKSUM_ALGORITHMS:
            raise MalformedError(
                "malformed_checksum",
                f"Upload-Checksum: write {' or '.join(CHECKSUM_ALGORITHMS)}, a space and the digest in base64",
            )
        return checksum

    def update(self, chunk: bytes) -> None:
        self._running.update(chunk)

    def holds(self) -> bool:
        """Whether the body came as it was sent."""
        return self._running.digest() == self.wanted
