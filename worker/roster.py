"""Who is in a job: which pairs are trained on and scored, which calibrate, which define the validation loss."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ecif import cut_batches
from store.blobs import Blobs
from worker.tensors import get_tensors, put_tensors

DATASET, VALIDATION, QUERIES = 0, 1, 2
"""Where a pair comes from."""


@dataclass(frozen=True)
class Roster:
    """Seeded, stored, and the same for every shard.

    Attributes:
        source, row: (N,) of every training pair: where it comes from, and its row there. The pairs that are scored
            come first, the calibration pairs after them.
        scored: how many are scored.
        partitions: (R, N), a permutation of the training pairs each.
        validation_source, validation_row: (V,) of the pairs that define the validation loss, in batch order.
        batch_size: of every batch but the last of a partition.
    """

    source: Tensor
    row: Tensor
    scored: int
    partitions: Tensor
    validation_source: Tensor
    validation_row: Tensor
    batch_size: int

    @property
    def n_pairs(self) -> int:
        """N."""
        return self.row.numel()

    @property
    def n_validation(self) -> int:
        """V."""
        return self.validation_row.numel()

    def batches(self, partition: int) -> list[Tensor]:
        """The batches of one partition: the training pairs in each, as places in `row`."""
        return cut_batches(self.partitions[partition], self.batch_size)

    def save(self, blobs: Blobs, name: str) -> str:
        numbers = torch.tensor([self.scored, self.batch_size])
        return put_tensors(
            blobs,
            name,
            {
                "source": self.source,
                "row": self.row,
                "partitions": self.partitions,
                "validation_source": self.validation_source,
                "validation_row": self.validation_row,
                "numbers": numbers,
            },
        )

    @classmethod
    def load(cls, blobs: Blobs, name: str) -> "Roster":
        content = get_tensors(blobs, name)
        scored, batch_size = content.pop("numbers").tolist()
        return cls(scored=scored, batch_size=batch_size, **content)
