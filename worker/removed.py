"""Which training pairs a removal takes out, as places in the roster."""

import torch
from torch import Tensor

from store import jobs, pairs, results
from store.errors import InvalidError
from store.specification import JobSpec, RemoveKeys
from worker.job_view import JobView
from worker.outputs import PlanOutput
from worker.roster import Roster
from worker.task import Task
from worker.tensors import get_tensors, put_tensors

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
            found = pairs.rows_of_keys(session, view.dataset.number, spec.remove.keys)
            missing = [key for key in spec.remove.keys if key not in found]
            if missing:
                more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
                names = ", ".join(repr(key if len(key) <= _SHOWN else f"{key[:_SHOWN]}…") for key in missing[:_LISTED])
                raise InvalidError("unknown_key", f"the dataset has no usable pair {names}{more}", "remove.keys")
            return list(found.values())
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
