"""Listings of any length, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ecif_client._async.connection import AsyncConnection
from ecif_client.frames import frame_of
from ecif_client.waiting import blocking_async

if TYPE_CHECKING:
    import pandas as pd

Row = TypeVar("Row")
PAGE_ROWS = 1000


class AsyncPages(Generic[Row]):
    """The rows of a listing, each page asked for when its first row is."""

    def __init__(self, connection: AsyncConnection, path: str, question: Mapping[str, Any]) -> None:
        self._connection = connection
        self._path = path
        self._question = {name: value for name, value in question.items() if value is not None}
        self._rows = self._each()

    def __aiter__(self) -> AsyncPages[Row]:
        return self

    async def __anext__(self) -> Row:
        return await self._rows.__anext__()

    async def to_pandas(self) -> pd.DataFrame:
        """The rows that have not been read yet: a row for each, a column for each field.

        Raises:
            MissingPackageError: there is no pandas.
        """
        rows: list[Any] = [row async for row in self]
        return await blocking_async(frame_of, rows)

    async def _each(self) -> AsyncIterator[Row]:
        cursor = None
        while True:
            params = {"limit": PAGE_ROWS, **self._question, **({"cursor": cursor} if cursor else {})}
            page = await self._connection.object("GET", self._path, "items", "next_cursor", params=params)
            for row in page["items"]:
                yield row
            cursor = page["next_cursor"]
            if cursor is None:
                return
