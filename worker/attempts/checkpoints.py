"""State that outlasts a shard: saved to a blob every few seconds, and loaded by whoever does the shard next."""

import time

from ecif import OnState, State
from worker.analysis.tensors import get_tensors, put_tensors
from worker.attempts.task import Task

_EVERY_SECONDS = 20.0


def resumed(task: Task) -> State | None:
    """What the last attempt at this shard left, if it left anything."""
    checkpoint = task.claim.checkpoint
    return get_tensors(task.blobs, checkpoint["blob"]) if checkpoint else None


def keeper(task: Task) -> OnState:
    """A callback that keeps the state it is handed, at most once in a while.

    Two blobs take turns: the one that the row names is never the one that is being written.
    """
    last, turn = time.monotonic(), 0

    def keep(state: State) -> None:
        nonlocal last, turn
        if time.monotonic() - last < _EVERY_SECONDS:
            return
        blob = put_tensors(task.blobs, task.blob_name(f"state-{turn % 2}.safetensors"), state)
        task.save_checkpoint({"blob": blob})
        last, turn = time.monotonic(), turn + 1

    return keep
