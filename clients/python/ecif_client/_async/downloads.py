"""Downloads that go on where they stopped, in this call and in the next."""

from pathlib import Path
from typing import Any

import httpx

from ecif_client._async.connection import AsyncConnection
from ecif_client.errors import UnreachableError
from ecif_client.part_file import PartFile
from ecif_client.sources import Seen
from ecif_client.waiting import blocking_async

# The service goes through an export from its beginning before it says how long the rest is.
_PATIENCE = httpx.Timeout(60.0, read=1800.0)


async def download(connection: AsyncConnection, path: str, params: dict[str, Any], into: Path, seen: Seen) -> int:
    """Write an answer to a file, whole or not at all; return its size in bytes. What came of it before an interruption
    stays beside the file, and is not sent again."""
    part = await blocking_async(PartFile, into)
    while not await connection.again(_receive, connection, path, params, part, seen):
        pass  # something came, so there is hope
    return await blocking_async(part.finish)


async def _receive(connection: AsyncConnection, path: str, params: dict[str, Any], part: PartFile, seen: Seen) -> bool:
    """Whether the whole is here; false where the connection broke after some of it had come.

    Raises:
        UnreachableError: it broke before.
    """
    begun = part.size
    headers = {"Accept-Encoding": "identity", **part.wanted}
    try:
        async with connection.stream("GET", path, params=params, headers=headers, timeout=_PATIENCE) as answer:
            done = 0
            if answer.status_code == 206:
                done = _place(answer)
                await blocking_async(part.go_on, done)
            else:
                await blocking_async(part.begin, answer.headers.get("ETag"))
            total = done + int(answer.headers.get("Content-Length", 0))
            async for piece in answer.aiter_bytes():
                await blocking_async(part.append, piece)
                done += len(piece)
                seen(done, max(total, done))
    except UnreachableError as error:
        if error.again and part.size > begun and part.wanted:
            return False
        raise
    return True


def _place(answer: httpx.Response) -> int:
    """The byte that a part begins at."""
    start = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    if not start.isdecimal():
        raise UnreachableError("a part came without its place (Content-Range)")
    return int(start)
