"""Which settings are measured: kinds of data, how the heads are trained, and seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from benchmarks.attribution.world import L2, Data
from benchmarks.digit_worlds import smallest

Fitted = Literal["minimum", "schedule"]

FITTED: Final[dict[Fitted, str]] = {
    "minimum": "to the minimum of the objective, δ = 0.3 per pair",
    "schedule": "by ten epochs of Adam on a fixed schedule, δ = 0.001: no stationary point",
}


@dataclass(frozen=True)
class Setting:
    """data: what is embedded. fitted: how heads are trained on it. seed: of data, model and batches.

    subsets: random 5 % sets that leave. singles: pairs that leave alone. edits: how many of the sets are edited out.
    l2: δ per pair where heads are trained to the minimum.
    """

    data: Data
    fitted: Fitted
    seed: int
    subsets: int = 50
    singles: int = 40
    edits: int = 20
    l2: float = L2

    @property
    def name(self) -> str:
        """Of its figures."""
        return f"{self.kind} seed {self.seed}"

    @property
    def kind(self) -> str:
        """Without the seed: what figures are averaged over."""
        return f"{self.data.kind} {self.data.noise} {self.fitted}"


KINDS: Final = {"digits": "shuffled", "scenes": "shuffled", "emoji": "shuffled"}
"""And the noise of each; a fifth of the pairs is wrong."""

SEEDS: Final = (0, 1, 2)


def settings_of(kind: str) -> list[Setting]:
    """All of one kind of data, seed by seed."""
    return [Setting(Data(kind, KINDS[kind]), fitted, seed) for seed in SEEDS for fitted in FITTED]


QUICK: Final = [setting for setting in settings_of("digits") if setting.seed == 0]

_SMALL = Data("digits", "shuffled", pairs=48, validation=24, batch=16, architecture=smallest(), pool=60, epochs=20)
TOYS: Final = [replace(Setting(_SMALL, fitted, 0), subsets=6, singles=4, edits=2, l2=1.0) for fitted in FITTED]
