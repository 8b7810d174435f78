"""How many go through a model at once, and half as many where the memory of a device does not suffice for that.

What is cut so is independent: directions of one linear map, inputs of one tower. The pairs of a batch are not, as each
stands in the softmax of the others; a batch that is too large stays so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

import torch

logger = logging.getLogger(__name__)

Made = TypeVar("Made")


class AtOnce:
    """A number of things that are done together, at most `most`.

    Attributes:
        most: to begin with.
        size: now; it stays halved until `reset`, so that memory runs out once and not in every pass.
    """

    def __init__(self, what: str, most: int) -> None:
        self.what, self.most, self.size = what, most, most

    def reset(self) -> None:
        """Begin with `most` again."""
        self.size = self.most

    def fitting(self, count: int, compute: Callable[[int], Made]) -> Made:
        """`compute(size)` for `count` things, told how many of them to do together.

        Raises:
            torch.OutOfMemoryError: one at a time is too many.
        """
        while True:
            size = min(self.size, count)
            try:
                return compute(size)
            except torch.OutOfMemoryError:
                if size <= 1:
                    raise
            # Out here the traceback is gone, and with it what the attempt held.
            self._halve(size)

    def pieces(self, count: int, compute: Callable[[slice], Made]) -> Iterator[Made]:
        """`compute` of one piece after another of `count` things.

        Raises:
            torch.OutOfMemoryError: one is too many.
        """

        def piece(start: int, size: int) -> Made:
            return compute(slice(start, start + size))

        start = 0
        while start < count:
            yield self.fitting(count - start, partial(piece, start))
            start += min(self.size, count - start)  # what fitted is what the size has become

    def _halve(self, size: int) -> None:
        self.size = size // 2
        torch.cuda.empty_cache()  # nothing where there is no GPU
        logger.warning("out of memory with %s %s at once: %s from here on", size, self.what, self.size)


DIRECTIONS = AtOnce("directions", 32)
"""That share one evaluation of a model: memory grows with them, the shared evaluation gets cheaper."""

_ELEMENTS = {"cpu": 1 << 19, "cuda": 1 << 24}
"""Of a matrix that is worked on at a time: what a processor keeps near, what fills a GPU."""


def rows_at_once(device: torch.device, columns: int) -> int:
    """How many rows of a matrix with so many columns are made, used and dropped at a time."""
    return max(1, _ELEMENTS.get(device.type, _ELEMENTS["cuda"]) // max(1, columns))
