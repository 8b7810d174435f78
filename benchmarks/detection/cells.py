"""Which settings are measured: kinds of data, noises, shares, models and seeds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, Self

from benchmarks.digit_worlds import smallest
from benchmarks.sections import Json
from encoders.architectures import TINY_NAME

Model = Literal["scratch", "transferred", "embeddings", "rotated"]

MODELS: Final[dict[Model, str]] = {
    "scratch": "`tiny`, trained from random weights on the noisy pairs by the job itself (scope `all`)",
    "transferred": "`tiny`, pretrained on other right pairs of that kind, sent as a checkpoint (scope `heads`)",
    "embeddings": "what that pretrained model makes of the pairs, sent as embeddings",
    "rotated": "the same, the images turned by a random rotation: two models that were never aligned",
}


@dataclass(frozen=True)
class Cell:
    """One setting. rate: the share of wrong pairs among those that can be wrong; of human noise what people did."""

    kind: str
    noise: str
    rate: float
    model: Model
    seed: int

    @property
    def name(self) -> str:
        """Of its figures."""
        return f"{self.setting} seed {self.seed}"

    @property
    def setting(self) -> str:
        """Without the seed: what figures are averaged over."""
        share = "" if self.human else f" {self.rate:.0%}"
        return f"{self.kind} {self.noise}{share} {self.model}"

    @property
    def human(self) -> bool:
        """People made the errors."""
        return self.noise.startswith("human")

    def as_json(self) -> Json:
        """As it stands before its figures."""
        return asdict(self)

    @classmethod
    def of(cls, figures: Json) -> Self:
        """Whose figures they are."""
        return cls(**{field.name: figures[field.name] for field in fields(cls)})


@dataclass(frozen=True)
class Scale:
    """architecture: of every model. pairs: of which `reserved` are right and calibrate; clean, pool: pairs apart.
    pretraining, training: epochs of the one and of that from scratch."""

    architecture: str | dict[str, Any]
    pairs: int
    reserved: int
    clean: int
    pool: int
    pretraining: int
    training: int


FULL: Final = Scale(TINY_NAME, pairs=1000, reserved=200, clean=200, pool=4000, pretraining=15, training=15)
TOY: Final = Scale(smallest(), pairs=100, reserved=30, clean=30, pool=60, pretraining=1, training=1)

SEEDS: Final = (0, 1, 2)
_MAIN: Final = 0.2

# By model, what it meets of a kind. Training from scratch is dear, and meets least.
_MET: Final[dict[str, dict[Model, tuple[tuple[str, float], ...]]]] = {
    "digits": {
        "embeddings": (
            ("shuffled", _MAIN),
            ("shuffled", 0.05),
            ("shuffled", 0.4),
            ("near", _MAIN),
            ("class_flip", _MAIN),
        ),
        "rotated": (("shuffled", _MAIN),),
        "transferred": (("shuffled", _MAIN),),
        "scratch": (("shuffled", _MAIN),),
    },
    "scenes": {
        "embeddings": (("shuffled", _MAIN), ("near", _MAIN), ("attribute", _MAIN), ("attribute", 0.4)),
        "transferred": (("shuffled", _MAIN), ("attribute", _MAIN)),
        "scratch": (("shuffled", _MAIN),),
    },
    "emoji": {
        "embeddings": (("shuffled", _MAIN), ("near", _MAIN), ("near", 0.05), ("near", 0.4)),
        "transferred": (("near", _MAIN),),
        "scratch": (("shuffled", _MAIN),),
    },
    "photos": {
        "embeddings": (
            ("shuffled", _MAIN),
            ("shuffled", 0.05),
            ("class_flip", _MAIN),
            ("human_aggregate", 0.0),
            ("human_one", 0.0),
            ("human_worst", 0.0),
        ),
        "rotated": (("shuffled", _MAIN),),
        "transferred": (("human_one", 0.0), ("human_worst", 0.0)),
        "scratch": (("human_one", 0.0),),
    },
}
KINDS: Final = tuple(_MET)

KEPT_APART_KIND: Final = "emoji"
KEPT_APART_SEED: Final = 2
"""Nothing is tuned on this kind, nor on this seed: they are looked at once a ranking is final."""


def cells_of(kind: str) -> list[Cell]:
    """All settings of a kind, seed by seed, the dearest model last."""
    return [
        Cell(kind, noise, rate, model, seed)
        for model, noises in _MET[kind].items()
        for seed in SEEDS
        for noise, rate in noises
    ]


TOYS: Final = (
    Cell("digits", "shuffled", _MAIN, "embeddings", 0),
    Cell("digits", "shuffled", _MAIN, "scratch", 0),
)

QUICK: Final = (
    Cell("digits", "shuffled", _MAIN, "embeddings", 0),
    Cell("scenes", "attribute", _MAIN, "transferred", 0),
    Cell("digits", "shuffled", _MAIN, "scratch", 0),
    Cell("scenes", "near", _MAIN, "embeddings", 0),
    Cell("photos", "human_one", 0.0, "transferred", 0),
)
"""Minutes, one seed; the kind that is kept apart is not among them."""

COST_KIND: Final = "scenes"
COST_MODELS: Final[tuple[Model, ...]] = ("embeddings", "transferred", "scratch")
"""Where seconds and memory are measured; one kind will do, as they depend on the number of pairs and on the model."""
