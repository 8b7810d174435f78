"""Who is in a job: which pairs are trained on and scored, which calibrate, which define the validation loss, and which
a removal takes out."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ecif import cut_batches
from store import jobs, pairs, results
from store.blobs import Blobs
from store.errors import InvalidError
from store.specification import JobSpec, RemoveKeys
from worker.analysis.job_view import JobView
from worker.analysis.tensors import get_tensors, put_tensors
from worker.attempts.task import Task
from worker.outputs import PlanOutput

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
        batch_size: of no batch more; how they are cut says `ecif.cut_batches`.
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


_LISTED = 5
_SHOWN = 100  # characters of a key


def resolve(task: Task, view: JobView, spec: JobSpec, roster: Roster) -> Tensor:
    """(N,) bool of the training pairs that leave.

    Raises:
        InvalidError: a key names no pair that is trained on, or nothing or everything would leave.
    """
    rows = torch.tensor(_rows(task, view, spec), dtype=torch.int64)
    scored = roster.row[: roster.scored]
    place = torch.searchsorted(scored, rows).clamp(max=len(scored) - 1)
    place = place[scored[place] == rows]  # pairs that are held out for validation are not trained on
    if not len(place):
        raise InvalidError("nothing_to_remove", "none of the pairs to remove is trained on", "remove")
    removed = torch.zeros(roster.n_pairs, dtype=torch.bool)
    removed[place] = True
    if int(removed.sum()) == roster.scored:
        raise InvalidError("everything_removed", "no pair would be left", "remove")
    return removed


def _rows(task: Task, view: JobView, spec: JobSpec) -> list[int]:
    with task.database.transaction() as session:
        if isinstance(spec.remove, RemoveKeys):
            rows = pairs.rows_of_keys(session, view.dataset.number, spec.remove.keys)
            missing = [key for key in spec.remove.keys if key not in rows]
            if missing:
                more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
                names = ", ".join(repr(key if len(key) <= _SHOWN else f"{key[:_SHOWN]}…") for key in missing[:_LISTED])
                raise InvalidError("unknown_key", f"the dataset has no usable pair {names}{more}", "remove.keys")
            return list(rows.values())
        assert spec.remove is not None  # noqa: S101  the specification demands it
        earlier = jobs.get(session, spec.remove.job)
        return results.flagged_rows(session, earlier.number, view.dataset.number)


def put_removed(task: Task, removed: Tensor) -> str:
    """Keep them beside the roster; return the name."""
    return put_tensors(task.blobs, task.blob_name("removed.safetensors"), {"removed": removed})


def get_removed(task: Task, plan: PlanOutput) -> Tensor:
    """(N,) bool of the training pairs that leave, in a removal."""
    assert plan.removed_blob is not None  # noqa: S101  every removal has planned it
    return get_tensors(task.blobs, plan.removed_blob)["removed"]
