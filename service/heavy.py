"""Requests that read whole jobs: exports, reports and checkpoints.

They run on threads of their own, so those that every other request needs stay free, and each tenant has a bounded
number of them under way. A client that reads slowly holds no thread: one is taken for each piece of the answer.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar, TypeVarTuple

from anyio import CapacityLimiter, to_thread

from service.limits import AtOnce

_THREADS = 16  # more than one tenant may have requests, so that it does not hold all of them
_LOOK_AGAIN_SECONDS = 10

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class Heavy(AtOnce):
    """The heavy requests of this process."""

    def __init__(self, most: int) -> None:
        super().__init__(
            most,
            "too_many_heavy_requests",
            f"{most} exports, reports or checkpoints are under way: wait for one",
            _LOOK_AGAIN_SECONDS,
        )
        self._threads = CapacityLimiter(_THREADS)

    async def run(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Call a function on one of the threads."""
        return await to_thread.run_sync(function, *arguments, limiter=self._threads)

    async def each(self, pieces: Iterator[str] | Iterator[bytes]) -> AsyncIterator[bytes]:
        """The pieces as bytes, each made when it is asked for."""

        def following() -> bytes | None:
            piece = next(pieces, None)
            return piece.encode() if isinstance(piece, str) else piece

        while (piece := await self.run(following)) is not None:
            yield piece
