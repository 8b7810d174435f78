"""Page cursors: opaque to clients, signed, and good only for the question that they came from."""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable
from functools import cached_property
from typing import Any

from store.errors import CursorError

_SIGNATURE_BYTES = 16


class Cursors:
    """Makes and reads cursors. The key is shared by all processes of one service, and fetched when first needed."""

    def __init__(self, fetch_key: Callable[[], bytes]) -> None:
        self._fetch_key = fetch_key

    @cached_property
    def _key(self) -> bytes:
        return self._fetch_key()

    def make(self, question: dict[str, Any], place: list[Any]) -> str:
        """The cursor that goes on after `place` in the answer to `question` (its filters and order)."""
        body = json.dumps(place, separators=(",", ":"), allow_nan=False).encode()
        return base64.urlsafe_b64encode(self._sign(question, body) + body).decode().rstrip("=")

    def read(self, question: dict[str, Any], cursor: str) -> list[Any]:
        """The place that a cursor of this question stands for.

        Raises:
            CursorError: it was not made here, or for another question.
        """
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise _refused() from None
        signature, body = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(question, body)):
            raise _refused()
        place: list[Any] = json.loads(body)
        return place

    def _sign(self, question: dict[str, Any], body: bytes) -> bytes:
        asked = json.dumps(question, sort_keys=True, default=str).encode()
        return hmac.digest(self._key, hashlib.sha256(asked).digest() + body, "sha256")[:_SIGNATURE_BYTES]


def _refused() -> CursorError:
    return CursorError(
        "invalid_cursor",
        "this cursor was not made for this question: take next_cursor as it came, and change no filter or order",
    )
