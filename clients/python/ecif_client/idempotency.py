"""Idempotency keys: the caller's, or one that says what is sent."""

import hashlib
import json
import uuid
from collections.abc import Mapping

import httpx

from ecif_client.errors import UsageError

_LONGEST = 255


def headers_of(key: str | None) -> dict[str, str]:
    """The header of a request that makes something; with a key of its own where the caller gave none.

    Raises:
        UsageError: a header cannot hold the key.
    """
    if key is None:
        key = str(uuid.uuid4())
    if not (0 < len(key) <= _LONGEST and key.isascii() and key.isprintable()) or key != key.strip():
        raise UsageError(f"an idempotency key is 1 to {_LONGEST} printable ASCII characters, not {key!r}")
    return {"Idempotency-Key": key}


def part_key(key: str | None, part: str) -> str | None:
    """The key of one of several requests that a caller's key stands for."""
    return None if key is None else _digest({"key": key, "part": part})


def upload_key(key: str | None, content: Mapping[str, str | None], turn: int) -> str:
    """The key of an upload. Without a caller's key it follows from the content, so whoever sends that again, after
    whatever stopped it, goes on with the same upload. `turn` counts the times that this led to something that is gone.
    """
    if key is not None and turn == 0:
        return key
    return _digest({"key": key, "content": dict(content), "turn": turn})


def _digest(named: Mapping[str, object]) -> str:
    return "ecif-client-" + hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def is_replay(answer: httpx.Response) -> bool:
    """Whether this was answered to an earlier request."""
    return bool(answer.headers.get("Idempotency-Replayed") == "true")
