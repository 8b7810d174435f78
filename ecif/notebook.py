"""What a computation that may be interrupted writes down, to go on from there."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ecif.solve.solution import OnState, State


class Notebook:
    """Results under names, and the states of solves. This one forgets all of it."""

    def once(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """What was made under this name before, or what `make` makes now."""
        return make()

    def state(self, name: str) -> State | None:
        """What a solve of this name last handed out, if it has not ended."""
        return None

    def keep(self, name: str) -> OnState:
        """Who takes the states of a solve of this name."""
        return _forget


def _forget(_: State) -> None:
    return
