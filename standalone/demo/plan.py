"""The numbers of the demo, all in one place."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Plan:
    """What is built and what is asked for."""

    seed: int = 0
    validation_pairs: int = 360
    swapped_share: float = 0.2
    image_pixels: int = 32
    epochs: int = 15
    shown: int = 10
    """Rows of the table."""
    depths: tuple[int, ...] = (10, 50, 100)
    """How far down the ranking planted pairs are counted."""
    patience_seconds: float = 1800.0

    def specification(self, dataset: str, validation: str) -> dict[str, Any]:
        """The body of `POST /jobs`."""
        return {
            "task": "misalignment",
            "dataset": dataset,
            "validation": {"dataset": validation},
            "model": {"architecture": "tiny", "pretrained": None},
            "objective": {"scope": "all", "seed": self.seed},
            "fit": {"epochs": self.epochs},
            "methods": ["ecif", "clip_score", "pair_loss"],
        }
