"""A job whose results say why: the phase that ranks is made to leave what the best of rankings would."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.service.exporting import World
from worker.analysis import rank
from worker.analysis.tensors import get_tensors, put_tensors
from worker.attempts.task import Done, Task
from worker.outputs import RankOutput

COLUMNS = ["clip_score, as given", "lemon, turned 0.1", "contrast_loss, as given"]


def explained_job(world: World, **spec: Any) -> str:
    """Each pair but the first of the upload is said to have exchanged captions with the one before it, whose caption
    fits better. The last of the ranking has no reasons, and one contribution to the first is not finite."""
    real = rank.run

    def run(task: Task) -> Done[RankOutput]:
        done = real(task)
        output = done.output
        content = get_tensors(task.blobs, output.ranked)
        position = content["position"]
        n = len(position)
        content["better_position"] = position - 1
        content["exchanged_position"] = position - 1
        content["why"] = torch.tensor([[2, 0, -1]]).repeat(n, 1)
        content["contribution"] = torch.tensor([[1.5, -0.25, 0.0]], dtype=torch.float64).repeat(n, 1)
        content["why"][-1] = -1
        content["contribution"][0, 1] = float("inf")
        content["margin"] = torch.arange(n, dtype=torch.float64)
        blob = put_tensors(task.blobs, task.blob_name("explained.safetensors"), content)
        return replace(done, output=replace(output, ranked=blob, columns=COLUMNS))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rank, "run", run)
        return world.job(**spec)
